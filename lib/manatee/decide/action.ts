/** What a sitter can do next: exactly one of these, and why. */
import type {Announcement} from '../coordination';
import type {Acknowledger} from '../server';
import type {ClusterState, Peer} from '../state';

export type Step =
  | {kind: 'wait'}
  // to ZooKeeper
  | {kind: 'announce'; announcement: Announcement}
  | {kind: 'withdraw'}
  /** `version`: of the view that was decided from; `absent`: who was taken for dead. */
  | {kind: 'declare'; next: ClusterState; version: number; absent: string[]}
  // to Postgres
  | {kind: 'initialise'}
  | {kind: 'start'; as: 'primary' | 'standby'; upstream: Peer | null}
  | {kind: 'stop'; how: 'fast' | 'immediate'}
  | {kind: 'follow'; upstream: Peer | null}
  | {kind: 'promote'; generation: number}
  | {kind: 'acknowledge'; by: Acknowledger}
  | {kind: 'openGate'; generation: number}
  | {kind: 'closeGate'}
  | {kind: 'restore'; from: Peer; how: 'rewind' | 'copy'; generation: number}
  /** A copy by an operator's order, which is taken away afterwards. */
  | {kind: 'rebuild'; from: Peer; generation: number};

export interface Action { step: Step; reason: string }

export const act = (step: Step, reason: string): Action => ({step, reason});
export const wait = (reason: string): Action => ({step: {kind: 'wait'}, reason});
