// All tabs of one user and workspace share a socket. A Web Lock says which tab holds it, and a
// BroadcastChannel brings the others what comes. Other users and workspaces have other names.
//
// The browser passes the lock on when its tab closes or crashes. A tab that is frozen keeps it: so a tab that
// is seen asks the holder whether it is there, and takes the lock from one that does not answer.

/** How often a visible tab asks; and how long the holder may be silent. */
const ASK = 500;
const SILENT = 1400;

export interface Tabs {
  /** To all others. */
  _post(message: unknown): void;
  _leave(): void;
  /** This tab has the lock. */
  _leads(): boolean;
  /** The holder was heard. */
  _heard(): void;
}

export interface Hooks {
  _lead(): void;
  _lose(): void;
  /** Another tab said something; */
  _message(message: unknown): void;
  /** and this is how one asks the holder for its state. */
  _question: unknown;
}

export function canShare(): boolean {
  const here = globalThis as { document?: unknown; WorkerGlobalScope?: unknown };
  return (
    // Node and its like have both, but no tabs.
    !!(here.document || here.WorkerGlobalScope) &&
    typeof BroadcastChannel === 'function' &&
    typeof navigator === 'object' &&
    !!navigator.locks
  );
}

export function share(name: string, hooks: Hooks): Tabs {
  const channel = new BroadcastChannel(name);
  let gone = false;
  let leads = false;
  let release = () => {};
  let waiting = new AbortController();
  let heard = Date.now();
  let ticked = heard;

  const request = (steal: boolean) => {
    waiting.abort();
    waiting = new AbortController();
    const { signal } = waiting;
    navigator.locks
      .request(name, steal ? { steal } : { signal }, () => {
        if (gone || (!steal && signal.aborted)) return undefined;
        leads = true;
        hooks._lead();
        return new Promise<void>((resolve) => (release = resolve));
      })
      // It was taken, or is not wanted any more.
      .catch(() => {})
      .then(() => {
        if (gone || !leads) return;
        leads = false;
        heard = Date.now();
        hooks._lose();
        request(false);
      });
  };

  const post = (message: unknown) => {
    if (!gone) channel.postMessage(message);
  };

  const tick = setInterval(() => {
    const now = Date.now();
    // It was this tab that stood still.
    if (now - ticked > ASK + 500 || now < ticked) heard = now;
    ticked = now;
    const hidden = typeof document === 'object' && document.visibilityState !== 'visible';
    if (leads || hidden) heard = now;
    else if (now - heard > SILENT + Math.random() * 200) {
      heard = now;
      request(true);
    } else post(hooks._question);
  }, ASK);

  channel.onmessage = (event) => {
    if (!gone) hooks._message(event.data);
  };
  request(false);
  post(hooks._question);

  return {
    _post: post,
    _leads: () => leads,
    _heard: () => {
      heard = Date.now();
    },
    _leave: () => {
      gone = true;
      leads = false;
      clearInterval(tick);
      waiting.abort();
      release();
      channel.close();
    },
  };
}
