/**
 * Published ports at an endpoint's addresses. Guarantees: what a lease says is open here as soon as the feed brings it, and closed when the lease is gone; a port stays
 * open while its container moves; a port that another program has is a state that is shown, tried again until it is free, and no hindrance to any other. README.md
 * says which ports these are. Called by main; knows the datacenter by its publications only.
 */
import os from 'node:os';
import type {Clock} from '../base/clock';
import {isCetusError} from '../base/errors';
import type {Log} from '../base/log';
import type {PublicationVerbs} from '../datacenter/verbs';
import type {IngressRow} from '../schema/objects';
import {decide, Desired, type Here, type Place, type Target, type Wanted} from './desired';
import {DEFAULT_LIMITS, type Limits, Shared} from './limits';
import type {Listener, Ways} from './listener';
import {TcpListener} from './tcp';
import {Turn} from './turn';
import {UdpListener} from './udp';
import {waysBy} from './ways';

export interface IngressOptions {
  publications: PublicationVerbs;
  log: Log;
  clock: Clock;
  /** The name under which this endpoint says what it has open; no other's. */
  endpoint: string;
  /** Endpoints of one datacenter on one machine share its ports by it. */
  datacenterId: string;
  limits?: Partial<Limits>;
  /** IPv4 addresses of this machine. */
  addresses?(): string[];
  nowMs?(): number;
}

export interface IngressState {
  duty: IngressRow['duty'];
  open: Place[];
  refused: {place: Place; containerId: string; reason: string}[];
  connections: number;
  sessions: number;
  turnedAway: number;
}

/** What stands at one place. */
interface Site {
  key: string;
  listener?: Listener;
  /** Another program has it, or it cannot be had at all. */
  refused?: {wanted: Wanted; reason: string; tries: number; timer?: NodeJS.Timeout};
  busy: boolean;
  again: boolean;
}

/** A lease that ends and comes again in one commit, for a container that moves, is seen as two changes. */
const LINGER_MS = 100;
const TRY_AGAIN_MS = 250;
const TRY_AGAIN_MOST_MS = 2_000;
/** Nodes' addresses and this machine's own may change without a lease's doing so. */
const LOOK_MS = 10_000;
const ANNOUNCE_MS = 60_000;
const ANNOUNCE_SOON_MS = 300;
const MOST_SHOWN = 100;

export class Ingress {
  private readonly desired = new Desired();
  private readonly sites = new Map<string, Site>();
  private readonly hosts = new Map<string, string | undefined | null>();
  private readonly shared: Shared;
  private readonly ways: Ways;
  private readonly turn: Turn;
  private readonly stopped = new AbortController();
  private readonly log: Log;
  private duty: IngressRow['duty'] = 'standby';
  private own: ReadonlySet<string> = new Set();
  private timers: NodeJS.Timeout[] = [];
  private soon: NodeJS.Timeout | undefined;
  private announcing: Promise<void> = Promise.resolve();
  private taking: Promise<void> = Promise.resolve();

  constructor(private readonly options: IngressOptions) {
    this.log = options.log.child({component: 'ingress'});
    this.shared = new Shared({...DEFAULT_LIMITS, ...options.limits});
    this.ways = waysBy(options.publications, this.shared.limits.connectMs);
    this.turn = new Turn(`cetus-ingress-${options.datacenterId}`, options.clock);
  }

  /** Resolves when what is published by now is open, or known to be another endpoint's on this machine. */
  async start(): Promise<void> {
    const {publications} = this.options;
    const {signal} = this.stopped;
    this.own = this.ownAddresses();
    await publications.follow({
      put: (key, publication) => {
        if (!this.hosts.has(publication.nodeId)) void this.locate(publication.nodeId);
        this.look(this.desired.put(key, publication));
      },
      drop: (key) => this.look(this.desired.drop(key)),
    }, signal);
    this.timers = [setInterval(() => void this.lookAround(), LOOK_MS), setInterval(() => this.announceSoon(0), ANNOUNCE_MS)];
    for (const timer of this.timers) timer.unref();
    await new Promise<void>((known) => {
      this.taking = this.turn.take(signal, () => {
        this.log.info('another endpoint of this machine has the published ports');
        known();
      }).then(() => {
        this.duty = 'serving';
        this.look(this.desired.all());
      }).catch((err: unknown) => {
        if (!signal.aborted) this.log.error({err}, 'published ports are not opened at this endpoint');
      }).finally(known);
    });
    this.announceSoon(0);
  }

  async stop(): Promise<void> {
    this.stopped.abort(new Error('the process ends'));
    for (const timer of this.timers) clearInterval(timer);
    clearTimeout(this.soon);
    for (const {listener, refused} of this.sites.values()) {
      clearTimeout(refused?.timer);
      listener?.end();
    }
    this.sites.clear();
    // Last: who takes over finds the ports free.
    this.turn.release();
    await this.taking;
    await this.announcing;
    await this.options.publications.announce(this.options.endpoint, undefined).catch((err: unknown) => this.log.debug({err}, 'what is said of this endpoint\'s ports stays'));
  }

  state(): IngressState {
    const sites = [...this.sites.values()];
    return {
      duty: this.duty, open: sites.flatMap(({listener, key}) => (listener ? [placeOfKey(key)] : [])),
      refused: sites.flatMap(({refused}) => (refused ? [{place: refused.wanted.place, containerId: refused.wanted.target.publication.containerId, reason: refused.reason}] : [])),
      connections: this.shared.connections, sessions: this.shared.sessions, turnedAway: this.shared.refused,
    };
  }

  private get here(): Here {
    return {addresses: this.own, hostOf: (nodeId) => (this.hosts.has(nodeId) ? this.hosts.get(nodeId) : null)};
  }

  /** Where a node is reached is asked once, and now and then again. */
  private async locate(nodeId: string): Promise<void> {
    const before = this.hosts.get(nodeId);
    if (!this.hosts.has(nodeId)) this.hosts.set(nodeId, null);
    try {
      this.hosts.set(nodeId, await this.options.publications.addressOf(nodeId));
    } catch (err) {
      if (isCetusError(err, 'notFound')) this.hosts.delete(nodeId);
      else this.log.warn({err, nodeId}, 'a node\'s address is not known');
      return;
    }
    if (before !== this.hosts.get(nodeId) || before === undefined) this.look(this.desired.all());
  }

  private async lookAround(): Promise<void> {
    this.own = this.ownAddresses();
    for (const nodeId of [...this.hosts.keys()]) await this.locate(nodeId);
    this.look(this.desired.all());
  }

  private ownAddresses(): Set<string> {
    return new Set(this.options.addresses?.() ?? Object.values(os.networkInterfaces()).flatMap((all) => (all ?? []).filter(({family}) => family === 'IPv4').map(({address}) => address)));
  }

  private look(places: Iterable<string>): void {
    if (this.duty !== 'serving' || this.stopped.signal.aborted) return;
    for (const key of places) {
      const site = this.sites.get(key) ?? {key, busy: false, again: false};
      site.again = true;
      if (site.busy) continue;
      this.sites.set(key, site);
      site.busy = true;
      void this.settle(site);
    }
  }

  /** Until what stands there is what is wanted, or cannot be for now. */
  private async settle(site: Site): Promise<void> {
    const {signal} = this.stopped;
    while (site.again && !signal.aborted) {
      site.again = false;
      const action = decide(site.listener?.target, this.desired.at(site.key, this.here));
      if (action.kind !== 'open') this.clear(site);
      switch (action.kind) {
        case 'open':
          await this.open(site, action.wanted);
          break;
        case 'lead':
          site.listener!.lead(action.target);
          this.log.info({place: site.key, ...whereTo(action.target)}, 'a published port leads elsewhere');
          break;
        case 'close':
          await this.options.clock.sleep(LINGER_MS, signal).catch(() => undefined);
          if (signal.aborted || this.desired.at(site.key, this.here)) site.again = true;
          else this.shut(site);
          break;
        case 'none':
          break;
        default:
          throw action satisfies never;
      }
    }
    site.busy = false;
    if (!site.listener && !site.refused) this.sites.delete(site.key);
  }

  private async open(site: Site, wanted: Wanted): Promise<void> {
    const {place, target} = wanted;
    const listener = place.protocol === 'tcp' ? new TcpListener(place, target, this.ways, this.shared)
      : new UdpListener(place, target, this.ways, this.shared, this.options.nowMs ?? (() => performance.now()));
    try {
      await listener.open((err) => {
        this.log.warn({err, place: site.key}, 'a published port broke; it is opened again');
        if (site.listener === listener) this.shut(site);
        this.look([site.key]);
      });
    } catch (err) {
      this.refuse(site, wanted, err as NodeJS.ErrnoException);
      return;
    }
    if (this.stopped.signal.aborted) return listener.end();
    if (site.refused) this.log.info({place: site.key}, 'the port is free by now');
    this.clear(site);
    site.listener = listener;
    // It may have been taken back, or lead elsewhere, meanwhile.
    site.again = true;
    this.log.info({place: site.key, ...whereTo(target)}, 'a published port is open here');
    this.announceSoon();
  }

  private shut(site: Site): void {
    site.listener?.close();
    delete site.listener;
    this.log.info({place: site.key}, 'a published port is closed here');
    this.announceSoon();
  }

  private refuse(site: Site, wanted: Wanted, err: NodeJS.ErrnoException): void {
    const reason = err.code === 'EADDRINUSE' ? 'another program of this machine has the port' : err.message;
    const tries = (site.refused?.tries ?? 0) + 1;
    clearTimeout(site.refused?.timer);
    if (site.refused?.reason !== reason)
      this.log.warn({err, place: site.key, ...whereTo(wanted.target)}, 'a published port cannot be opened at this endpoint; it is at the others, and is tried again');
    const timer = setTimeout(() => this.look([site.key]), Math.min(TRY_AGAIN_MOST_MS, TRY_AGAIN_MS * 2 ** Math.min(tries - 1, 10))).unref();
    site.refused = {wanted, reason, tries, timer};
    this.announceSoon();
  }

  private clear(site: Site): void {
    if (!site.refused) return;
    clearTimeout(site.refused.timer);
    delete site.refused;
    this.announceSoon();
  }

  private announceSoon(afterMs = ANNOUNCE_SOON_MS): void {
    if (this.soon || this.stopped.signal.aborted) return;
    this.soon = setTimeout(() => {
      this.soon = undefined;
      this.announcing = this.announcing.then(() => this.announce());
    }, afterMs).unref();
  }

  private async announce(): Promise<void> {
    if (this.stopped.signal.aborted) return;
    const {duty, open, refused} = this.state();
    const row: IngressRow = {
      endpoint: this.options.endpoint, addresses: [...this.own].filter((address) => !address.startsWith('127.')).sort(), duty, open: open.length,
      refused: refused.slice(0, MOST_SHOWN).map(({place, containerId, reason}) => ({...place, containerId, reason})),
    };
    await this.options.publications.announce(this.options.endpoint, row).catch((err: unknown) => this.log.debug({err}, 'what is open here could not be said; the next time tries again'));
  }
}

function whereTo({publication, way}: Target): object {
  const {containerId, containerPort, nodeId, account} = publication;
  return {containerId, containerPort, nodeId, account, way: way.kind === 'node' ? way.host : 'agent'};
}

function placeOfKey(key: string): Place {
  const [protocol, address, port] = key.split('/');
  return {protocol: protocol as Place['protocol'], address: address!, port: Number(port)};
}

