import { mount } from 'svelte';
import Notifications from './Notifications.svelte';

mount(Notifications, { target: document.querySelector('#app') });
