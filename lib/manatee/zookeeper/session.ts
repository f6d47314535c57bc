/**
 * One ZooKeeper session over node-zookeeper-client's connection. Every call is answered or fails within its deadline, and a failed write says whether
 * it may have happened. A session ends once, by expiry or by `close`; contact.ts makes the next one.
 *
 * The library leaves this to us (1.1.3, each seen in its source or in a test):
 *   - it never looks whether its pings are answered, and waits for ever for a server that took the connection and says nothing
 *   - requests that it had not sent when the connection broke wait for the next one, for ever where none comes, and are lost at expiry without a word
 *   - half an answer that the old connection left is put before the first answer of the new one
 *   - an error code that it does not know is thrown out of the socket's event, which ends the process
 *   - its transactions turn version 0 into "any version": ours are made of its request classes
 *   - it has no `sync`; that is no loss, see `throughLeader` (3.8's Leader.processSync answers without asking anybody)
 */
import {OPEN_ACL_UNSAFE} from 'node-zookeeper-client/lib/ACL';
import ConnectionManager from 'node-zookeeper-client/lib/ConnectionManager';
import {OP_CODES, protocol, Request, TransactionRequest, type Response, type Stat, type TransactionOp} from 'node-zookeeper-client/lib/jute';
import {CetusError} from '../../base/errors';
import type {Log} from '../../base/log';
import type {Monotonic} from '../coordination';
import {Lease} from './lease';

export type Op =
  | {op: 'create'; path: string; data: Buffer; kind: 'persistent' | 'ephemeral' | 'sequential'}
  | {op: 'set'; path: string; data: Buffer; version: number}
  | {op: 'remove'; path: string; version: number}
  | {op: 'check'; path: string; version: number};

export type Refusal = 'noNode' | 'nodeExists' | 'badVersion';
/** What became of a transaction that was answered: all of it, or nothing because of the op `at`. */
export type Outcome = {done: true} | {done: false; at: number; because: Refusal};

export interface Node {data: Buffer; version: number; created: number; owner: string}

export interface SessionOptions {
  /** host:port,host:port */
  servers: string;
  sessionTimeoutMs: number;
  clock: Monotonic;
  log: Log;
  /** Connected, disconnected, or a watch fired. */
  changed(): void;
  expired(): void;
}

/** ZooKeeper's own codes (KeeperException.Code). */
const CODES: Readonly<Record<number, Refusal>> = {[-101]: 'noNode', [-110]: 'nodeExists', [-103]: 'badVersion'};
const SESSION_EXPIRED = -112;
const KINDS = {persistent: 0, ephemeral: 1, sequential: 2} as const;
const ANY_VERSION = -1;
const CLOSE_TIMEOUT_MS = 1000;
const FIRST_PAUSE_MS = 50;
const MAX_PAUSE_MS = 1000;
/** Without contact for so many timeouts: the servers may have lost what this session has seen, and then none of them takes it ever again. */
const GIVE_UP_TIMEOUTS = 10;
const {STATES} = ConnectionManager;

type Phase = 'connecting' | 'connected' | 'ended';

export class Session {
  private readonly manager: ConnectionManager;
  private readonly lease = new Lease();
  private phase: Phase = 'connecting';
  private readonly calls = new Map<Request, (why: 'lost' | 'unsent') => void>();
  /** Where the next connection leads: on from the server that was left, which may have stalled. */
  private turn = 0;
  /** Since the last connection. */
  private attempts = 0;
  /** Deadlines that passed since the last answer: each doubles the next, or a slow machine would do nothing but reconnect. */
  private stalls = 0;
  private connectSentMs = 0;
  private lastContactMs: number;
  private lastAgreedMs = -Infinity;
  private attemptTimer: NodeJS.Timeout | undefined;
  private begun = false;

  constructor(private readonly options: SessionOptions) {
    this.lastContactMs = options.clock.nowMs();
    this.manager = new ConnectionManager(options.servers, {sessionTimeout: options.sessionTimeoutMs, spinDelay: 0}, (state) => this.onState(state));
    const take = this.manager.onSocketData;
    this.manager.onSocketData = (bytes) => {
      try {
        take.call(this.manager, bytes);
      } catch (err) {
        options.log.warn({err}, 'an answer of ZooKeeper that the library cannot read');
        this.breakConnection();
      }
    };
    this.manager.findNextServer = (connect) => this.nextServer(connect);
    this.manager.connect();
  }

  connected(): boolean { return this.phase === 'connected'; }
  /** Empty before the first connection. */
  id(): string { return this.begun ? this.manager.getSessionId().toString('hex') : ''; }
  /** As the servers granted it. */
  timeoutMs(): number { return this.manager.getSessionTimeout(); }
  leaseUntilMs(): number { return this.lease.until(); }
  /** When the newest write was sent that a quorum has answered. */
  agreedMs(): number { return this.lastAgreedMs; }

  /** undefined: there is no such node. A watch tells of its next change, or of its creation. */
  async read(path: string, watch: boolean): Promise<Node | undefined> {
    for (;;) {
      const {err, payload} = await this.ask(OP_CODES.GET_DATA, new protocol.GetDataRequest(path, watch), () => this.manager.registerDataWatcher(path, this.onWatch));
      if (err !== 'noNode') return nodeOf(payload!.data ?? Buffer.alloc(0), payload!.stat!);
      if (!watch || !await this.exists(path, true)) return undefined;
    }
  }

  async children(path: string, watch: boolean): Promise<string[] | undefined> {
    for (;;) {
      const {err, payload} = await this.ask(OP_CODES.GET_CHILDREN2, new protocol.GetChildren2Request(path, watch), () => this.manager.registerChildWatcher(path, this.onWatch));
      if (err !== 'noNode') return payload!.children ?? [];
      if (!watch || !await this.exists(path, true)) return undefined;
    }
  }

  /** Everything, or nothing. Where the answer is lost it throws `unavailable` with info.outcome 'unknown'. */
  async transact(ops: Op[], writes = true): Promise<Outcome> {
    const sentMs = this.options.clock.nowMs();
    const {err, payload} = await this.ask(OP_CODES.MULTI, new TransactionRequest(ops.map(encoded)), undefined, writes);
    if (err) return {done: false, at: 0, because: err};
    // Ops before the one that failed say 0, those behind it that they were not reached.
    const at = payload!.results!.findIndex((result) => result.type === OP_CODES.ERROR && result.err !== 0);
    if (at >= 0) return {done: false, at, because: this.refusal(payload!.results![at]!.err!)};
    this.lastAgreedMs = Math.max(this.lastAgreedMs, sentMs);
    this.lease.answered(sentMs, this.options.clock.nowMs());
    return {done: true};
  }

  /**
   * Reads that are sent after this, on this session, are no older than this: a write that writes nothing, agreed to by a quorum. Not `sync`, which a
   * leader answers that was deposed and has not noticed. It costs one entry of their log and moves no node, so it fires no watch.
   */
  async throughLeader(): Promise<void> {
    const outcome = await this.transact([{op: 'check', path: '/', version: ANY_VERSION}], false);
    if (!outcome.done) throw new CetusError('internal', 'ZooKeeper says that it has no root');
  }

  /** Ends the session at the servers where they can be reached, so that its ephemeral nodes go at once; else they go when it expires. */
  async close(): Promise<void> {
    if (this.phase === 'ended') return;
    const {socket} = this.manager;
    const goodbye = this.phase === 'connected';
    this.end();
    if (goodbye && socket && !socket.destroyed) {
      this.manager.close();
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, CLOSE_TIMEOUT_MS);
        socket.once('close', () => { clearTimeout(timer); resolve(); });
      });
    }
    this.manager.socket?.destroy();
  }

  private async exists(path: string, watch: boolean): Promise<boolean> {
    const {err} = await this.ask(OP_CODES.EXISTS, new protocol.ExistsRequest(path, watch),
      (found) => { if (found) this.manager.registerDataWatcher(path, this.onWatch); else this.manager.registerExistenceWatcher(path, this.onWatch); }, false, watch);
    return !err;
  }

  private readonly onWatch = (): void => this.options.changed();

  /** `watched` is called in the same turn as the answer comes, before a notification that follows it can be read. */
  private ask(type: number, payload: object, watched?: (found: boolean) => void, writes = false, watchesAbsence = false): Promise<{err: Refusal | undefined; payload: Response['payload']}> {
    if (this.phase !== 'connected') return Promise.reject(new CetusError('unavailable', 'there is no connection to ZooKeeper'));
    const patienceMs = this.patienceMs();
    const request = new Request(new protocol.RequestHeader(0, type), payload);
    return new Promise((resolve, reject) => {
      const settle = (): boolean => {
        clearTimeout(timer);
        return this.calls.delete(request);
      };
      const fail = (why: 'lost' | 'unsent'): void => {
        if (!settle()) return;
        const unknown = writes && why === 'lost';
        reject(new CetusError('unavailable', unknown ? 'the answer of ZooKeeper was lost: the write may have happened' : 'the connection to ZooKeeper broke', {info: unknown ? {outcome: 'unknown'} : {}}));
      };
      const timer = setTimeout(() => afterReading(() => {
        if (!this.calls.has(request)) return;
        this.stalls += 1;
        this.options.log.info({patienceMs}, 'ZooKeeper does not answer; trying another server');
        fail('lost');
        this.breakConnection();
      }), patienceMs);
      this.calls.set(request, fail);
      this.manager.queue(request, (error, response) => {
        // The library's own words for a broken connection come without a response.
        if (!response) return fail('lost');
        if (!settle()) return;
        this.stalls = 0;
        this.lastContactMs = this.options.clock.nowMs();
        const code = error ? response.header.err : 0;
        try {
          const err = code ? this.refusal(code) : undefined;
          if (watchesAbsence || !err) watched?.(!err);
          resolve({err, payload: response.payload});
        } catch (err) {
          reject(err as Error);
        }
      });
    });
  }

  private refusal(code: number): Refusal {
    const known = CODES[code];
    if (known) return known;
    if (code === SESSION_EXPIRED) throw new CetusError('unavailable', 'our ZooKeeper session has expired');
    throw new CetusError('internal', `ZooKeeper refuses with code ${code}`);
  }

  private onState(state: number): void {
    switch (state) {
      case STATES.CONNECTED: {
        clearTimeout(this.attemptTimer);
        const begins = !this.begun;
        this.begun = true;
        this.phase = 'connected';
        this.attempts = 0;
        this.lastContactMs = this.options.clock.nowMs();
        this.lease.connected(this.connectSentMs, this.timeoutMs(), begins);
        this.options.log.info({session: this.id(), timeoutMs: this.timeoutMs(), begins}, 'connected to ZooKeeper');
        if (begins && this.timeoutMs() !== this.options.sessionTimeoutMs) this.options.log.warn({askedMs: this.options.sessionTimeoutMs, grantedMs: this.timeoutMs()}, 'ZooKeeper grants another session timeout than was asked for');
        this.options.changed();
        return;
      }
      case STATES.DISCONNECTED:
        return this.onDisconnected();
      case STATES.SESSION_EXPIRED:
        if (this.phase === 'ended') return;
        this.options.log.warn({session: this.id()}, 'our ZooKeeper session has expired');
        this.end();
        this.breakConnection();
        this.options.expired();
        return;
      default:
    }
  }

  private onDisconnected(): void {
    clearTimeout(this.attemptTimer);
    clearTimeout(this.manager.connectTimeoutHandler ?? undefined);
    this.manager.pendingBuffer = null;
    const unsent = new Set(this.manager.packetQueue.queue.splice(0).map((packet) => packet.request));
    for (const [request, fail] of [...this.calls]) fail(unsent.has(request) ? 'unsent' : 'lost');
    if (this.phase !== 'connected') return;
    this.phase = 'connecting';
    this.options.log.info({session: this.id()}, 'lost the connection to ZooKeeper');
    this.options.changed();
  }

  /** All servers in turn, at once; then again after a pause that grows. */
  private nextServer(connect: (server: {host: string; port: string | number}) => void): void {
    const {servers} = this.manager;
    const server = servers[this.turn++ % servers.length]!;
    const rounds = Math.floor(this.attempts / servers.length);
    const begins = this.attempts % servers.length === 0;
    const pauseMs = rounds > 0 && begins ? Math.min(MAX_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.min(rounds, 10)) * (0.5 + Math.random() / 2) : 0;
    this.attempts += 1;
    this.attemptTimer = setTimeout(() => {
      if (this.phase === 'ended') return;
      if (this.begun && this.options.clock.nowMs() - this.lastContactMs > GIVE_UP_TIMEOUTS * this.timeoutMs()) {
        this.options.log.warn({session: this.id()}, 'no contact with ZooKeeper for long: beginning another session');
        this.end();
        this.options.expired();
        return;
      }
      this.connectSentMs = this.options.clock.nowMs();
      connect(server);
      // Slowly more, for slow servers: a stopped one takes its turn in each round, and all of this.
      this.attemptTimer = setTimeout(() => afterReading(() => { if (this.phase === 'connecting') this.breakConnection(); }), this.timeoutMs() / 3 * Math.min(3, 1 + rounds / 2));
    }, pauseMs);
  }

  /** A third of the timeout: with a beat every sixth, half of it is left to find another server. */
  private patienceMs(): number {
    return Math.min(this.timeoutMs() * 2 ** this.stalls, this.timeoutMs() * 3) / 3;
  }

  /** The library then connects to the next server. */
  private breakConnection(): void {
    this.manager.socket?.destroy();
  }

  private end(): void {
    this.phase = 'ended';
    this.lease.ended();
    clearTimeout(this.attemptTimer);
    clearTimeout(this.manager.connectTimeoutHandler ?? undefined);
    this.manager.connect = () => undefined;
    for (const fail of [...this.calls.values()]) fail('lost');
  }
}

/** A process that was stopped finds its timers due before it has read what came meanwhile: sockets first. */
function afterReading(act: () => void): void {
  setImmediate(act);
}

function nodeOf(data: Buffer, stat: Stat): Node {
  // Creation transactions are epoch and counter: exact as numbers up to two million elections.
  return {data, version: stat.version, created: Number(stat.czxid.readBigUInt64BE()), owner: stat.ephemeralOwner.toString('hex')};
}

function encoded(op: Op): TransactionOp {
  switch (op.op) {
    case 'create': return {type: OP_CODES.CREATE, path: op.path, data: op.data, acls: OPEN_ACL_UNSAFE, mode: KINDS[op.kind]};
    case 'set': return {type: OP_CODES.SET_DATA, path: op.path, data: op.data, version: op.version};
    case 'remove': return {type: OP_CODES.DELETE, path: op.path, version: op.version};
    case 'check': return {type: OP_CODES.CHECK, path: op.path, version: op.version};
  }
}
