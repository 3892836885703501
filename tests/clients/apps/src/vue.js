import { createApp } from 'vue';
import Notifications from './Notifications.vue';

createApp(Notifications).mount('#app');
