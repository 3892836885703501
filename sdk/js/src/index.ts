export { HeraldClient } from './client.js';
export type {
  ClientMessage,
  ControlMessage,
  Events,
  Gap,
  Notification,
  Options,
  Snapshot,
  Status,
} from './types.js';
