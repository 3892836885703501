// The list. It is no live region: the toasts say what is new, and a list that grows is not read out twice.

import { useId, useRef } from 'react';

const STATES = {
  idle: 'Not connected',
  connecting: 'Connecting',
  open: 'Connected',
  waiting: 'Connection lost. It comes back by itself',
  stopped: 'Disconnected',
};

export function NotificationList({ notifications, status, unread, gap, markRead, clear, onLoad }) {
  const heading = useId();
  const list = useRef(null);

  const read = (id, item) => {
    markRead(id);
    // The button goes away, and with it the focus. The item keeps the place.
    item.focus();
  };
  const clearAll = () => {
    clear();
    list.current.focus();
  };

  return (
    <section aria-labelledby={heading}>
      <h2 id={heading} ref={list} tabIndex={-1}>Notifications ({unread} unread)</h2>
      {/* Said when it changes, and not before what is being read is over. */}
      <p role="status">
        {STATES[status.state]}
        {status.state === 'stopped' && `: ${status.reason}`}
      </p>
      {gap && (
        <p>
          Some notifications may be missing. <button type="button" onClick={onLoad}>Load them</button>
        </p>
      )}
      {notifications.length === 0 ? (
        <p>There are none.</p>
      ) : (
        <>
          <button type="button" onClick={() => { markRead(); list.current.focus(); }}>Mark all as read</button>{' '}
          <button type="button" onClick={clearAll}>Clear the list</button>
          {/* Safari forgets that a list without marks is one, unless it is said. */}
          <ul role="list">
            {notifications.map((one) => (
              <Item key={one.id} {...one} onRead={read} />
            ))}
          </ul>
        </>
      )}
    </section>
  );
}

function Item({ id, title, message, type, read, timestamp, onRead }) {
  const item = useRef(null);
  return (
    <li ref={item} tabIndex={-1} className={read ? 'read' : 'unread'}>
      <h3>
        {/* In words: colour alone tells not everybody. */}
        <span className={`type ${type}`}>{type}</span> {title} {!read && <span className="new">new</span>}
      </h3>
      <p>{message}</p>
      {timestamp && <time dateTime={timestamp}>{new Date(timestamp).toLocaleTimeString()}</time>}{' '}
      {!read && (
        <button type="button" onClick={() => onRead(id, item.current)}>
          Mark as read<span className="hidden">: {title}</span>
        </button>
      )}
    </li>
  );
}
