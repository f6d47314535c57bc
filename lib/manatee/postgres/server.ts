/**
 * The real PostgresServer: PostgreSQL 14 or later of the distribution, in a directory of the peer's own (home.ts), as an unprivileged user.
 *
 * One verb at a time; `facts` goes beside them. The server lives no longer than this object does: `close` ends it orderly, the watchdog where there is no
 * `close`. A rule that was to be tightened (gate, acknowledgement) and cannot be proven to be in force within seconds ends the server at once.
 */
import {chown, mkdir} from 'node:fs/promises';
import path from 'node:path';
import {CetusError, asCetusError} from '../../base/errors';
import type {Log} from '../../base/log';
import {readPassword} from '../../base/password-file';
import type {Monotonic} from '../coordination';
import {lsnDistance} from '../lsn';
import type {Acknowledger, PostgresServer, ServerFacts} from '../server';
import type {Peer} from '../state';
import {Acknowledgement} from './acknowledge';
import {Backup} from './backup';
import {Binaries} from './binaries';
import {CLIENT, freshWish, passFile, PEER_ID} from './conf';
import {Configuration} from './configuration';
import {Divergence} from './divergence';
import {Looker} from './facts';
import {Gate} from './gate';
import {checkReachable, Home, type Memory} from './home';
import {initialise, type Passwords} from './initialise';
import {Postmaster} from './postmaster';
import {endTools, isStopped} from './processes';
import {once, Session} from './session';
import {firstNumber, Timelines} from './timelines';
import {isNoChild, stopReceiving} from './upstream';
import {Watchdog} from './watchdog';

export interface PostgresServerOptions {
  self: Peer;
  /** The peer's directory; Postgres' own is `data` in it. Made where it is missing. */
  dataDir: string;
  /** Holds the socket; belongs to the server's user. */
  socketDir: string;
  /** What Postgres listens on: an address, or several with commas, or '*'. */
  listenHost: string;
  /** Files with one password each, the same on every peer. */
  passwordFiles: Passwords;
  /** Default: the newest in /usr/lib/postgresql. */
  binDir?: string;
  /** More settings; they outrank ours, but not what the sitter changes. Alike on all peers where Postgres wants that (max_connections). */
  settings?: Record<string, string>;
  clock: Monotonic;
  log: Log;
}

const MAX_SOCKET_PATH = 107;
/** How long `start` waits for a server that recovers, or, a standby, may have to stream before it may answer. */
const RECOVERY_MS = 10_000;
const PROMOTION_MS = 60_000;
/** After a promotion, before the checkpoint that it leaves behind: clients' first commits do not wait behind its flushes. */
const CHECKPOINT_AFTER_MS = 1000;
/** Orphans of a postmaster that was killed hold its shared memory for a moment. */
const FORMER_MS = 10_000;
const FACTS_MS = 700;

export async function createPostgresServer(options: PostgresServerOptions): Promise<PostgresServer> {
  const {self, log} = options;
  if (!PEER_ID.test(self.id)) throw new CetusError('invalid', `${JSON.stringify(self.id)} cannot be a peer's id: it is 1 to 50 of a-z, 0-9, '-', '_' and '.', begins with a letter or digit, and not with cetus_`);
  const binaries = await Binaries.find(options.binDir);
  const passwords = {client: readPassword(options.passwordFiles.client), replication: readPassword(options.passwordFiles.replication)};
  const home = await Home.open(options.dataDir);
  const socketDir = path.resolve(options.socketDir);
  if (Buffer.byteLength(`${socketDir}/.s.PGSQL.${self.port}`) > MAX_SOCKET_PATH) throw new CetusError('invalid', `the path of Postgres' socket is longer than ${MAX_SOCKET_PATH} bytes, choose a shorter directory: ${socketDir}`);
  await mkdir(socketDir, {recursive: true, mode: 0o755});
  await chown(socketDir, home.user.uid, home.user.gid);
  await checkReachable(socketDir, home.user);
  await home.write(home.pgpass, passFile(passwords.replication));
  const server = new RealServer(options, socketDir, binaries, passwords, home, log);
  await server.clear();
  await endTools([home.root, home.making, home.copying, home.data], options.clock);
  await home.mend();
  return server;
}

class RealServer implements PostgresServer {
  private readonly clock: Monotonic;
  private readonly session: Session;
  /** Apart from the verbs': a look that takes too long gives its connection up. */
  private readonly looks: Session;
  private readonly postmaster: Postmaster;
  private readonly configuration: Configuration;
  private readonly acknowledgement: Acknowledgement;
  private readonly gate: Gate;
  private readonly looker: Looker;
  private readonly backup: Backup;
  private readonly watchdog: Watchdog;
  private readonly timelines: Timelines;
  private readonly divergence: Divergence;
  private readonly listeners = new Set<() => void>();
  private last: Promise<unknown> = Promise.resolve();
  private closed = false;
  /** What it was started as; null: it is not meant to run. */
  private meant: 'primary' | 'standby' | null = null;
  private downSinceMs: number | null = null;
  /** This run of the server has answered. */
  private answered = false;

  constructor(options: PostgresServerOptions, socketDir: string, private readonly binaries: Binaries, private readonly passwords: Passwords, private readonly home: Home, private readonly log: Log) {
    const {clock, self} = options;
    this.clock = clock;
    this.session = new Session(socketDir, self.port);
    this.timelines = new Timelines(home);
    this.looks = new Session(socketDir, self.port);
    this.looker = new Looker(this.looks);
    this.postmaster = new Postmaster(binaries, home, clock, log, () => this.hasEnded());
    const place = {self, socketDir, listenHost: options.listenHost, pgpass: home.pgpass, settings: options.settings ?? {}};
    this.configuration = new Configuration(place, passwords.replication, home, this.postmaster, this.session, clock);
    const fence = async (): Promise<void> => { await this.postmaster.stop('immediate'); };
    this.acknowledgement = new Acknowledgement(this.configuration, this.session, clock, fence);
    this.gate = new Gate(this.configuration, this.session, {host: reachable(options.listenHost), port: self.port, password: passwords.client}, home.data, this.postmaster, clock, log, fence);
    this.divergence = new Divergence(this.configuration, this.session, this.postmaster, passwords.replication, clock, log, () => this.tell());
    this.backup = new Backup(binaries, home, this.configuration, passwords.replication, clock, log);
    this.watchdog = new Watchdog(home.data, clock, log, () => { void fence(); });
  }

  clear(): Promise<void> {
    return this.postmaster.clear();
  }

  // ---- facts ----

  async facts(): Promise<ServerFacts> {
    const alive = this.postmaster.alive;
    const [data, memory, control] = await Promise.all([this.home.dataState(), this.home.memory(), this.home.control()]);
    // Our connection would answer on while nobody new gets one.
    const look = alive && !isStopped(this.postmaster.pid!) ? await this.looker.look(FACTS_MS).catch(() => null) : null;
    const process = !this.postmaster.alive ? 'stopped' : look ? 'running' : this.answered ? 'hung' : 'starting';
    if (look) {
      this.answered = true;
      this.downSinceMs = null;
    } else if (this.meant) this.downSinceMs ??= this.clock.nowMs();
    this.divergence.consider(look);
    const {wish} = this.configuration;
    // It was about to be promoted, and did not get there.
    const ran = memory.ran === 'primary' && (look ? look.inRecovery : await this.home.isStandby()) ? 'standby' : memory.ran;
    return {
      data, systemId: control?.systemId ?? null, process, downSinceMs: this.downSinceMs, ran, inRecovery: look?.inRecovery ?? null, wal: look?.wal ?? null,
      upstream: wish.upstream?.id ?? null, receiving: look?.receiving ?? false, diverged: this.divergence.found, acknowledger: wish.acknowledger,
      standbys: look?.standbys ?? [], gate: wish.gate, generation: memory.generation, restoredIn: memory.restoredIn,
    };
  }

  // ---- life ----

  initialise(): Promise<void> {
    return this.inTurn('initialise', async () => {
      const data = await this.home.dataState();
      if (data === 'broken') throw new CetusError('conflict', 'there are broken data, which only a copy replaces');
      if (data === 'none') await initialise(await this.binaries.of(), this.home, this.passwords);
    });
  }

  start(as: 'primary' | 'standby', upstream: Peer | null): Promise<void> {
    return this.inTurn('start', async () => {
      const data = await this.home.dataState();
      if (data !== 'present') throw new CetusError('conflict', data === 'none' ? 'there is no database to start' : 'the data are broken: a copy or a rewind began and did not end');
      if (this.postmaster.alive && this.meant !== as) throw new CetusError('conflict', `it runs as ${this.meant}: stop it first`);
      this.meant = as;
      this.downSinceMs ??= this.clock.nowMs();
      if (as === 'primary' && !this.postmaster.alive && (await this.home.isStandby()))
        throw new CetusError('conflict', 'the data are a standby\'s: they come out of recovery by a promotion, or two servers would write one timeline');
      if (this.postmaster.alive) await this.asAfterStart(as, upstream);
      else await this.launch(as, as === 'standby' ? upstream : null);
      this.answered = true;
      this.downSinceMs = null;
      this.tell();
    });
  }

  private async launch(as: 'primary' | 'standby', upstream: Peer | null): Promise<void> {
    if (as === 'standby') await this.home.writeLasting(path.join(this.home.data, 'standby.signal'), '');
    await this.timelines.tidy();
    const memory = await this.home.memory();
    await this.rememberRan(memory, as);
    this.forget();
    if (upstream) this.divergence.towards(upstream);
    // Before there is a server: it is never without. Nothing that a fresh server does needs a lease.
    this.watchdog.permitUntil(Infinity);
    await this.watchdog.ensure();
    const until = this.clock.nowMs() + FORMER_MS;
    for (;;) {
      await this.configuration.prepare(freshWish(upstream));
      await this.postmaster.start();
      const why = await this.comesUp();
      if (why === undefined) return;
      // Its last checkpoint lies beyond the fork of a timeline that it has already heard of: it cannot even start as that one's standby.
      if (as === 'standby' && upstream && isNoChild(why)) this.divergence.from(upstream);
      if (!/shared memory|lock file/.test(why) || this.clock.nowMs() > until) throw new CetusError('unavailable', `Postgres did not start: ${why}`);
      await this.clock.sleep(50);
    }
  }

  /** Why it did not. Throws `timeout` where that is not decided yet. Asks on the looks' connection, which the first look, short of time, finds made. */
  private async comesUp(): Promise<string | undefined> {
    const until = this.clock.nowMs() + RECOVERY_MS;
    for (;;) {
      const why = await this.postmaster.failure();
      if (why !== undefined) return why;
      const answer = (await this.postmaster.answers()) ? await this.looks.ask('SELECT').then(() => null, (err: unknown) => asCetusError(err).message) : 'it does not take connections yet';
      if (answer === null) return undefined;
      if (this.clock.nowMs() > until) throw new CetusError('timeout', `Postgres is still recovering: ${answer}`);
      await this.clock.sleep(10);
    }
  }

  private async asAfterStart(as: 'primary' | 'standby', upstream: Peer | null): Promise<void> {
    const why = await this.comesUp();
    if (why !== undefined) throw new CetusError('unavailable', `Postgres did not start: ${why}`);
    await this.gate.close();
    await this.acknowledgement.by({kind: 'nobody'});
    if (as === 'standby') await this.streamFrom(upstream);
  }

  stop(how: 'fast' | 'immediate'): Promise<void> {
    return this.inTurn('stop', async () => {
      this.meant = null;
      this.downSinceMs = null;
      await this.postmaster.stop(how);
      this.forget();
    });
  }

  private hasEnded(): void {
    if (this.meant) {
      this.downSinceMs ??= this.clock.nowMs();
      void this.postmaster.failure().then((why) => this.log.warn({why}, 'Postgres ended'));
    }
    this.forget();
    this.tell();
  }

  /** What was known of a server that is no more. */
  private forget(): void {
    this.session.drop();
    this.looks.drop();
    this.answered = false;
    this.looker.reset();
    this.configuration.reset();
    this.acknowledgement.reset();
    this.divergence.pause();
  }

  // ---- replication ----

  follow(upstream: Peer | null): Promise<void> {
    return this.inTurn('follow', () => this.streamFrom(upstream));
  }

  private async streamFrom(upstream: Peer | null): Promise<void> {
    this.mustRun();
    if (upstream && !PEER_ID.test(upstream.id)) throw new CetusError('invalid', `${JSON.stringify(upstream.id)} is no peer's id`);
    if (upstream === null) {
      const look = await this.looker.look();
      if (!look.inRecovery) return;
      return stopReceiving(this.configuration, this.session, this.looker, this.clock);
    }
    this.divergence.towards(upstream);
    await this.configuration.apply({upstream});
  }

  promote(generation: number): Promise<void> {
    return this.inTurn('promote', async () => {
      this.mustRun();
      const look = await this.looker.look();
      if (!look.inRecovery) return;
      if (this.configuration.wish.upstream || look.receiver) throw new CetusError('conflict', 'it is still receiving: it must stop to before it is promoted');
      await this.leaveRecovery(generation);
      this.tell();
    });
  }

  private async leaveRecovery(generation: number): Promise<void> {
    // The generation too, whose first client would else wait until that is on the disk.
    const memory = await this.home.memory();
    await Promise.all([this.timelines.reserveBelow(firstNumber(generation)), this.home.remember({...memory, ran: 'primary', generation})]);
    const known = this.looker.furthest;
    await this.session.ask('SELECT pg_promote(false)');
    this.warm();
    const until = this.clock.nowMs() + PROMOTION_MS;
    let look = await this.looker.look();
    while (look.inRecovery) {
      if (!this.postmaster.alive || this.clock.nowMs() > until) throw new CetusError('unavailable', 'Postgres did not leave recovery');
      await this.clock.sleep(3);
      look = await this.looker.look();
    }
    this.meant = 'primary';
    // The end that was told of a standby may lie within a record whose rest never came; such a record is dropped, and the new timeline begins before it.
    // What has been said to be there must be: the next record begins in the next segment.
    if (lsnDistance(look.wal!, known) < 0n) await this.session.ask('SELECT pg_switch_wal()');
    // Nobody waits for it here; but until it has been made, a rewind by us as a source would take us for the former timeline's.
    void this.checkpointSoon();
  }

  /**
   * Where nobody has been in the clients' database since this server started, or since its tables changed, the first to come waits until his process has gathered
   * the catalogues, a tenth of a second. One of ours does while the promotion waits for the disk.
   */
  private warm(): void {
    void once({...this.session.config, database: CLIENT}, (client) => client.query('SELECT 1 FROM pg_class LIMIT 1')).catch((err: unknown) => this.log.debug({err}, 'the clients\' database was not visited'));
  }

  private async checkpointSoon(): Promise<void> {
    await this.clock.sleep(CHECKPOINT_AFTER_MS);
    await this.session.fresh((client) => client.query('CHECKPOINT'), PROMOTION_MS).catch((err: unknown) => this.log.warn({err}, 'the checkpoint after the promotion failed'));
  }

  acknowledge(by: Acknowledger): Promise<void> {
    return this.inTurn('acknowledge', async () => {
      this.mustRun();
      if (by.kind === 'peer' && !PEER_ID.test(by.id)) throw new CetusError('invalid', `${JSON.stringify(by.id)} is no peer's id`);
      await this.acknowledgement.by(by);
    });
  }

  // ---- clients ----

  openGate(generation: number): Promise<void> {
    return this.inTurn('openGate', async () => {
      this.mustRun();
      await this.acknowledgement.certain();
      // Before anybody can have read it.
      const memory = await this.home.memory();
      if (memory.generation !== generation) await this.home.remember({...memory, generation});
      await this.gate.open(generation);
    });
  }

  closeGate(): Promise<void> {
    return this.inTurn('closeGate', async () => {
      if (this.postmaster.alive) await this.gate.close();
    });
  }

  // ---- data ----

  restore(from: Peer, how: 'rewind' | 'copy', generation: number): Promise<void> {
    return this.inTurn('restore', async () => {
      if (this.postmaster.alive) throw new CetusError('conflict', 'the server must be stopped before its data are restored');
      if (how === 'copy') await this.backup.copy(from, generation);
      else await this.backup.rewind(from, generation);
      this.forget();
      this.divergence.mended();
      this.tell();
    });
  }

  private async rememberRan(memory: Memory, ran: Memory['ran']): Promise<void> {
    if (memory.ran !== ran) await this.home.remember({...memory, ran});
  }

  // ---- the rest ----

  permitUntil(moment: number): void {
    this.watchdog.permitUntil(moment);
  }

  onChange(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  async close(): Promise<void> {
    if (this.closed) return;
    await this.stop('fast');
    this.closed = true;
    this.watchdog.close();
    this.listeners.clear();
  }

  private tell(): void {
    for (const listener of this.listeners) listener();
  }

  private mustRun(): void {
    if (!this.postmaster.alive) throw new CetusError('unavailable', 'our Postgres is not running');
  }

  /** Whatever a verb meets that has no kind of its own is `unavailable`, with what the verb was doing: the disk is full, a program is missing. */
  private inTurn<T>(what: string, verb: () => Promise<T>): Promise<T> {
    const mine = this.last.then(async () => {
      if (this.closed) throw new CetusError('unavailable', 'it was closed');
      try {
        return await verb();
      } catch (err) {
        const known = asCetusError(err);
        throw known.kind === 'internal' ? new CetusError('unavailable', `${what}: ${known.message}`, {cause: err}) : known;
      }
    });
    this.last = mine.catch(() => undefined);
    return mine;
  }
}

/** Where a listener on this address is reached from here. */
function reachable(listenHost: string): string {
  const host = listenHost.split(',')[0]!.trim();
  return host === '*' || host === '0.0.0.0' || host === '' ? '127.0.0.1' : host === '::' ? '::1' : host;
}
