// What is new, for a moment. It stays in the list, so nothing is lost with the toast.

import { useEffect, useRef, useState } from 'react';

/** How many at once: a flood is neither read out nor does it cover the page. */
const MOST = 3;
/** How long one stays, unless it is pointed at or has the focus. */
const STAYS = 10_000;

export function Toasts({ notifications }) {
  const [shown, setShown] = useState([]);
  const newest = useRef(notifications[0]?.id);

  useEffect(() => {
    const known = notifications.findIndex(({ id }) => id === newest.current);
    const fresh = known < 0 ? notifications : notifications.slice(0, known);
    if (fresh.length === 0) return;
    newest.current = fresh[0].id;
    setShown((before) => [...before, ...fresh.toReversed()].slice(-MOST));
  }, [notifications]);

  const dismiss = (gone) => setShown((before) => before.filter(({ id }) => id !== gone));

  useEffect(() => {
    const leave = (event) => {
      if (event.key === 'Escape') setShown((before) => before.slice(0, -1));
    };
    addEventListener('keydown', leave);
    return () => removeEventListener('keydown', leave);
  }, []);

  const isUrgent = ({ type }) => type === 'alert' || type === 'error';
  const toasts = (those) => those.map((one) => <Toast key={one.id} {...one} onDismiss={dismiss} />);
  // Both regions are there before anything is in them: else nothing is said.
  return (
    <section className="toasts" aria-label="New notifications">
      <div role="status" aria-atomic="false" aria-relevant="additions">{toasts(shown.filter((one) => !isUrgent(one)))}</div>
      {/* Interrupts, which only what is urgent may do. */}
      <div role="alert" aria-atomic="false" aria-relevant="additions">{toasts(shown.filter(isUrgent))}</div>
    </section>
  );
}

function Toast({ id, title, message, onDismiss }) {
  const [held, setHeld] = useState(false);
  useEffect(() => {
    if (held) return;
    const timer = setTimeout(() => onDismiss(id), STAYS);
    return () => clearTimeout(timer);
  }, [held]);
  return (
    <div
      className="toast"
      onMouseEnter={() => setHeld(true)}
      onMouseLeave={() => setHeld(false)}
      onFocus={() => setHeld(true)}
      onBlur={() => setHeld(false)}
    >
      <p><strong>{title}</strong> {message}</p>
      <button type="button" onClick={() => onDismiss(id)}>
        Dismiss<span className="hidden">: {title}</span>
      </button>
    </div>
  );
}
