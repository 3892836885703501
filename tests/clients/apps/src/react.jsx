import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { Notifications } from './Notifications.jsx';

createRoot(document.querySelector('#app')).render(<StrictMode><Notifications /></StrictMode>);
