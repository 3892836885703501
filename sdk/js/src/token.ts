// What a token says of itself. Whether it is a good one the gateway says.

export interface Claims {
  exp?: number;
  iat?: number;
  iss?: unknown;
  sub?: unknown;
}

/** What a text says, or nothing where it is no JSON. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any
export function parse(text: string): any {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

export function claims(token: string): Claims {
  try {
    const payload = (token.split('.')[1] || '').replace(/-/g, '+').replace(/_/g, '/');
    return parse(atob(payload)) || {};
  } catch {
    return {};
  }
}

/** `text` without any part of these tokens, which a server might quote. */
export function redact(text: string, tokens: string[]): string {
  for (const token of tokens) {
    for (const part of [token, ...token.split('.')]) {
      if (part.length > 5) text = text.split(part).join('***');
    }
  }
  return text;
}
