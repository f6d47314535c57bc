/**
 * The build engines of this node: one for each account that builds, so that nobody's caches, names or images are another's; at most MAX_RUNNING at
 * a time. A node without dockerd says so. Called by the agent's server; nothing else knows that there are engines.
 */
import {createHash} from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import {type Clock, systemClock} from '../../base/clock';
import {CetusError} from '../../base/errors';
import {type Ids, systemIds} from '../../base/ids';
import type {Log} from '../../base/log';
import type {BuildPrepare} from '../../schema/agent';
import type {ImageLending} from '../images/lending';
import type {NodeNetworking} from '../network/network';
import {BuildEngine} from './engine';
import {sweepCgroups} from './process';

export interface BuildEnginesOptions {
  /** Nothing else writes below it. */
  directory: string;
  /** Below each hierarchy's root. */
  cgroup: string;
  /** dockerd and an init, where the node has them. */
  program: string;
  init: string;
  runc: string;
  insecureRegistries: readonly string[];
  lending: ImageLending;
  network: NodeNetworking;
  log: Log;
  clock?: Clock;
  ids?: Ids;
  idleMs?: number;
}

const MAX_RUNNING = 8;
const IDLE_MS = 10 * 60_000;

export class BuildEngines {
  private readonly engines = new Map<string, BuildEngine>();
  private closed = false;

  constructor(private readonly options: BuildEnginesOptions) {
    fs.mkdirSync(options.directory, {recursive: true, mode: 0o700});
    sweepCgroups(options.cgroup);
  }

  /** Answers the hold under which the build goes on. */
  async prepare(request: BuildPrepare): Promise<string> {
    const {program, init, network} = this.options;
    if (program === '' || init === '' || this.closed)
      throw new CetusError('unavailable', `docker build needs ${program === '' ? 'dockerd (Debian\'s package docker.io)' : 'an init (Debian\'s package tini)'} on this node`);
    await network.ensureNetwork(request.network);
    const engine = this.engine(request.account);
    return engine.prepare(request, () => this.makeRoom(engine));
  }

  of(hold: string): BuildEngine {
    for (const engine of this.engines.values()) if (engine.holdsStill(hold)) return engine;
    throw new CetusError('notFound', 'the build has ended', {info: {hold}});
  }

  /** Nothing is started for it. */
  async usage(account: string): Promise<unknown> {
    if (!this.engines.has(account) && !fs.existsSync(this.directory(account))) return {BuildCache: [], BuilderSize: 0};
    return this.engine(account).usage();
  }

  async close(): Promise<void> {
    this.closed = true;
    await Promise.all([...this.engines.values()].map((engine) => engine.close()));
  }

  private engine(account: string): BuildEngine {
    let engine = this.engines.get(account);
    if (!engine) {
      const {program, init, runc, network, cgroup, insecureRegistries, lending, clock = systemClock, ids = systemIds, idleMs = IDLE_MS} = this.options;
      const directory = this.directory(account);
      fs.mkdirSync(directory, {recursive: true, mode: 0o711});
      const log = this.options.log.child({component: 'build'});
      engine = new BuildEngine({program, init, runc, network, account, directory, cgroup: path.join(cgroup, path.basename(directory)), insecureRegistries, lending, clock, ids, log, idleMs});
      this.engines.set(account, engine);
    }
    return engine;
  }

  /** Short, because sockets below it have at most 107 characters; and no name of an account is a path. */
  private directory(account: string): string {
    return path.join(this.options.directory, createHash('sha256').update(account).digest('hex').slice(0, 12));
  }

  private async makeRoom(starting: BuildEngine): Promise<void> {
    const running = [...this.engines.values()].filter((engine) => engine !== starting && engine.running);
    if (running.length < MAX_RUNNING) return;
    const idle = running.filter((engine) => !engine.busy).sort((a, b) => a.lastUsedMs - b.lastUsedMs)[0];
    if (!idle) throw new CetusError('unavailable', `${MAX_RUNNING} accounts build on this node already; try again when one of them has ended`);
    await idle.stop();
  }
}
