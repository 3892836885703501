import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { useNotifications } from 'herald-client/react';
import { NotificationList } from './NotificationList.jsx';
import { Toasts } from './Toasts.jsx';
import './notifications.css';

const options = {
  url: 'wss://ws.example.com/',
  workspace: 'acme',
  getToken: async ({ signal }) => (await fetch('/token', { signal })).text(),
};

function App() {
  const herald = useNotifications(options);
  return (
    <>
      <h1>Orders</h1>
      <NotificationList {...herald} onLoad={() => location.reload()} />
      <Toasts notifications={herald.notifications} />
    </>
  );
}

createRoot(document.querySelector('#app')).render(<StrictMode><App /></StrictMode>);
