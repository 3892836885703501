// Requests to the gateway. A token goes in a header, and is kept nowhere but here, until the page is left.

export interface Development {
  user: string;
  workspace: string;
  token: string | null;
  publishToken?: string | null;
}

export interface About {
  version: string;
  gateway: string;
  /** Why it is not ready, if it is not. */
  unready: string | null;
  /** The URL of its sockets. */
  sockets: string;
  /** Whether a socket may be opened by this page. */
  originAllowed: boolean;
  /** Whether events can be published here. */
  publish: boolean;
  development: Development | null;
}

/** What went wrong, in the gateway's words. */
export class Problem extends Error {
  constructor(
    readonly status: number,
    detail: string,
  ) {
    super(detail);
  }
}

let adminToken = '';

/** What is behind the scheme, where that was copied, too. */
export const withoutScheme = (token: string) => token.trim().replace(/^bearer\s+/i, '');

/**
 * A token as it is sent: a browser refuses to send other characters, and says only that it did not.
 * @throws Problem
 */
export function sendable(token: string): string {
  const text = withoutScheme(token);
  if (!/^[\x21-\x7e]*$/.test(text)) throw new Problem(0, 'A token has no blanks, and only letters, digits and signs of ASCII. Copy it whole.');
  return text;
}

/** @throws Problem */
export function signIn(token: string): void {
  adminToken = sendable(token);
}

async function send(path: string, headers: Record<string, string>, body?: string): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(new URL(path, document.baseURI), {
      method: body === undefined ? 'GET' : 'POST',
      headers: {
        'Herald-Console': '1',
        ...(body === undefined ? {} : { 'Content-Type': 'application/json' }),
        ...headers,
      },
      body,
      cache: 'no-store',
    });
  } catch {
    throw new Problem(0, 'The gateway does not answer. Is it running?');
  }
  if (response.ok) return response;
  const text = await response.text();
  let detail = text.trim();
  try {
    const problem = JSON.parse(text);
    detail = problem.detail || problem.title || detail;
  } catch {
    // It is plain text.
  }
  throw new Problem(response.status, detail || `HTTP ${response.status}`);
}

const admin = (): Record<string, string> => (adminToken ? { Authorization: `Bearer ${adminToken}` } : {});

export async function read<T>(path: string, headers: Record<string, string> = {}): Promise<T> {
  return (await send(`console/api/${path}`, { ...admin(), ...headers })).json();
}

export async function metrics(): Promise<string> {
  return (await send('console/api/metrics', admin())).text();
}

/** In development with new tokens, for this user and workspace where they are given. */
export function about(of: { user?: string; workspace?: string } = {}): Promise<About> {
  const given = Object.entries(of).filter(([, value]) => value);
  return read(`about${given.length ? `?${new URLSearchParams(given)}` : ''}`);
}

export interface Preview {
  notification: unknown;
  warnings: string[];
}

const event = (workspace: string, name: string) =>
  [workspace, name].map(encodeURIComponent) as [string, string];

export async function preview(workspace: string, name: string, payload: string): Promise<Preview> {
  const path = `console/api/preview/${event(workspace, name).join('/')}`;
  return (await send(path, admin(), payload)).json();
}

export interface Stored {
  stream: string;
  sequence: number;
}

/** Publishes by the same route as every other publisher, with a token for that alone. */
export async function publish(token: string, workspace: string, name: string, payload: string): Promise<Stored> {
  const [slug, full] = event(workspace, name);
  const path = `console/publish/v1/workspaces/${slug}/events/${full}`;
  const key = Array.from(crypto.getRandomValues(new Uint32Array(4)), (word) => word.toString(16)).join('-');
  return (await send(path, { Authorization: `Bearer ${token}`, 'Idempotency-Key': key }, payload)).json();
}
