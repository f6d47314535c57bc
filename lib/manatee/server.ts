/**
 * What manatee wants of one Postgres server: postgres/ has the real one, test/model/manatee a simulated one.
 *
 * Everything here fails closed. A server that has just been started has its gate closed and its commits wait for a standby that does not
 * exist; only `acknowledge` and `openGate` change that. Every verb may be repeated, and broken off at any point by a crash.
 */
import type {Lsn} from './lsn';
import type {Peer} from './state';

/** Who must have flushed a commit before it is acknowledged. `alone`: the server itself is enough. */
export type Acknowledger = {kind: 'nobody'} | {kind: 'alone'} | {kind: 'peer'; id: string};

export interface Standby {
  /** The peer's id (its application_name). */
  id: string;
  /** 'streaming' once it has caught up. */
  state: 'startup' | 'catchup' | 'streaming' | 'backup' | 'stopping';
  flushed: Lsn;
}

export interface ServerFacts {
  /** 'broken': a copy or a rewind began and did not end; only a new copy helps. */
  data: 'none' | 'present' | 'broken';
  /** null where there are no data. */
  systemId: string | null;
  /** 'hung': it is there and does not answer. facts() itself always answers, within a second. */
  process: 'stopped' | 'starting' | 'running' | 'hung';
  /** Monotonic ms since when it has not been running although it was meant to; null while it runs, after `stop`, and before the first `start`. */
  downSinceMs: number | null;
  /** Of the last run or this one. 'primary': it has been out of recovery with these data, and may have WAL that nobody else has; `restore` makes it 'standby'. */
  ran: 'primary' | 'standby' | 'never';
  /** null unless it is running. */
  inRecovery: boolean | null;
  /**
   * The end of what it has: of a standby max(flushed, replayed), of a primary what is flushed. null where it is not known: not running, or a standby
   * that has not yet gone through all that lies on its disk.
   */
  wal: Lsn | null;
  /** Whom it is told to stream from, and whether it does. */
  upstream: string | null;
  receiving: boolean;
  /**
   * Seen at the last attempts to stream: our WAL has left the upstream's history, or the upstream no longer has what we need. Stays, also over a
   * stop, until `restore` or until another upstream is followed.
   */
  diverged: boolean;
  /** Whoever may be enough: while it changes, the looser of the two. */
  acknowledger: Acknowledger;
  /** Of a primary. */
  standbys: Standby[];
  gate: 'closed' | 'open';
  /** The generation of the last openGate or promotion with these data, kept over restarts (setting cetus.generation); 0: no client was ever let in. */
  generation: number;
  /** The generation in which the data were last rewound or copied; 0: never. */
  restoredIn: number;
}

export interface PostgresServer {
  facts(): Promise<ServerFacts>;
  /** Makes an empty database (initdb) where there are no data; does not start it. */
  initialise(): Promise<void>;
  /**
   * Starts it, gate closed, nobody acknowledging, and waits until it answers. Throws `unavailable` with its last words where it ends instead, and `timeout`
   * where it is still recovering after some seconds: facts say 'starting' then. A standby's data as a primary: `conflict`, they are promoted.
   */
  start(as: 'primary' | 'standby', upstream: Peer | null): Promise<void>;
  /** fast: an orderly shutdown, everything sent to the standbys; after a few seconds immediate: as a crash, by SIGKILL where need be. No process of it is left when this returns. */
  stop(how: 'fast' | 'immediate'): Promise<void>;
  /** A standby streams from this peer from now on; null: it stops receiving, and when this returns it has stopped and cannot begin again. */
  follow(upstream: Peer | null): Promise<void>;
  /**
   * Out of recovery; returns when it is. Throws `conflict` where it is still receiving. The new timeline has a number that no promotion of another generation
   * is given: two that never heard of each other would else write two histories under one number, which nobody can tell apart.
   */
  promote(generation: number): Promise<void>;
  /**
   * In effect when this returns: no process of the server goes by the former rule any more. From one peer to another only by way of
   * nobody (`conflict`): in between, two peers would each be enough. Where `nobody` cannot be proven within seconds the server is ended (`unavailable`).
   */
  acknowledge(by: Acknowledger): Promise<void>;
  /** Lets clients in, who read `generation`, and has seen one come in. In recovery: `conflict`. Where it fails, the gate is closed. */
  openGate(generation: number): Promise<void>;
  /**
   * No client is connected, and none can connect, when this returns, whatever clients have set in their sessions or roles. Replication goes on. Where that
   * cannot be proven within seconds the server is ended, which is as good, and this returns.
   */
  closeGate(): Promise<void>;
  /**
   * Makes the data a standby's of `from`, which is out of recovery. rewind: throws away what `from` has not; copy: begins anew. The server must be stopped.
   * A rewind that began and failed leaves 'broken'; one whose source could not be asked leaves the data as they were. `generation` is remembered as `restoredIn`.
   */
  restore(from: Peer, how: 'rewind' | 'copy', generation: number): Promise<void>;
  /**
   * For the watchdog, a process of its own: unless it hears again before this moment (monotonic ms) it ends the server at once, whatever has become of us.
   * Infinity: as long as we live. It fires once for a moment. Infinity after each start.
   */
  permitUntil(moment: number): void;
  /** The server ended, or something else worth a look happened. */
  onChange(listener: () => void): () => void;
  /** Ends the server orderly, and its watchdog. A server never outlives whoever started it. */
  close(): Promise<void>;
}
