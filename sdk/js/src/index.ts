export { HeraldClient } from './client.js';
export type { Events, Gap, Notification, Options, Snapshot, Status } from './types.js';
