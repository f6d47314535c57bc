/** Puts fleet together: registry, reports, listener and a client per node. Constructed by lib/main; verbs and chains see the Fleet interface. */
import type {Socket} from 'node:net';
import {type Clock, systemClock} from '../base/clock';
import {Credentials, currentOf, type TlsMaterial} from '../base/credentials';
import {CetusError} from '../base/errors';
import type {InternalAddress} from '../base/listen';
import type {Log} from '../base/log';
import type {Moray} from '../moray/moray';
import type {Container} from '../schema/container';
import {BUCKETS} from '../schema/buckets';
import type {Node} from '../schema/node';
import type {FleetAuthority} from './authority/authority';
import {HttpAgentClient} from './agent-client';
import type {AgentClient, Fleet} from './fleet';
import {Listener} from './listener';
import {OutstandingTransitions} from './outstanding';
import {assignments} from './assignments';
import {FENCE_AFTER_LEASES} from './liveness';
import {isAway, Registry} from './registry';
import {type ContainerListener, ReportApplier} from './reports';
import {Review} from './review';
import {TableKeeper} from './table-keeper';

export interface FleetOptions {
  moray: Moray;
  log: Log;
  clock?: Clock;
  listen: InternalAddress;
  /** Our certificate towards agents on https; unused for unix sockets. */
  agentTls?: TlsMaterial | Credentials;
  /** Who makes members and unmakes them. Absent: a unix socket, or certificates from elsewhere. */
  authority?: FleetAuthority;
  /** Where machines join, as operators are told. Default: where the listener is. */
  joinUrl?: string;
  /** How long a heartbeat keeps a node alive; agents beat three times as often. Default 15 s. */
  leaseMs?: number;
  /** How long an agent may run what is marked after it sent the last heartbeat that was answered. Default four leases. */
  fenceAfterMs?: number;
  /** This process among those on the same store: the same after a restart, and nobody else's. */
  endpoint?: string;
  /** Milliseconds by a clock that nobody sets. Default: an injected `clock`'s, else the machine's. */
  nowMs?(): number;
  /** After start, nobody is declared suspect for so long. Default two leases. */
  graceMs?: number;
  /** For simulators and tests: how to reach a node. Default: HTTP to its agentUrl. */
  connect?(node: Node): AgentClient;
}

export interface RunningFleet extends Fleet {
  /** Resolves once agents can join. */
  start(): Promise<void>;
  stop(): Promise<void>;
  /** All nodes, in no order, without a copy of anything. */
  known(): Iterable<Node>;
  /** Whether it is this process's turn to act upon what nodes become. */
  reviews(): boolean;
  /** For the agents' configuration. */
  readonly listenUrl: string;
  /** After a report changed a container, in this process; returns how to stop listening. */
  onContainerChange(listener: ContainerListener): () => void;
  /** Who answers connections that containers open to the Docker API, as the account that has the container. */
  onDocker(take: (socket: Socket, account: string) => void): void;
}

interface Connection { url: string; client: AgentClient; close(): Promise<void>; finish(): Promise<void>; cut(why: CetusError): void }

const RETIRE_MS = 300_000;

export function createFleet(options: FleetOptions): RunningFleet {
  const {moray} = options;
  const log = options.log.child({component: 'fleet'});
  const clock = options.clock ?? systemClock;
  const leaseMs = options.leaseMs ?? 15_000;
  const outstanding = new OutstandingTransitions(clock);
  const endpoint = options.endpoint ?? 'endpoint';
  const nowMs = options.nowMs ?? (options.clock ? () => clock.now() : () => performance.now());
  const registry = new Registry({moray, log, clock, endpoint, changed: (id, node, before) => {
    review.nodeChanged(id, node, before);
    tables.nodeChanged(id, node);
    if (!node || node.liveness === before?.liveness) return;
    if (isAway(node)) cutOff(node);
    for (const listener of livenessListeners) listener(node);
  }});
  const review: Review = new Review({
    moray, log, clock, registry, endpoint, leaseMs, nowMs, graceMs: options.graceMs ?? 2 * leaseMs, fenceAfterMs: options.fenceAfterMs ?? FENCE_AFTER_LEASES * leaseMs,
  });
  const applier = new ReportApplier({moray, log, clock, outstanding});
  const connections = new Map<string, Connection>();
  const tables: TableKeeper = new TableKeeper({moray, log, clock, agent: nodeId => agentOf(nodeId)});
  const retired = new Set<Connection>();
  const livenessListeners = new Set<(node: Node) => void>();
  /** Whoever waits for an answer or reads a stream of a node that is lost would wait for the kernel's patience, a quarter of an hour. */
  const cutOff = (node: Node): void => {
    connections.get(node.id)?.cut(unreachable(node));
    connections.delete(node.id);
  };
  const {authority, agentTls} = options;
  // With a new certificate come new connections; on the old ones what runs comes to its end, and who still holds a client for his next call has the time for it.
  const stopFollowing = agentTls instanceof Credentials ? agentTls.onReplace(() => {
    for (const connection of connections.values()) {
      retired.add(connection);
      setTimeout(() => void connection.finish().catch(() => undefined).finally(() => retired.delete(connection)), RETIRE_MS).unref();
    }
    connections.clear();
  }) : undefined;

  let takeDocker: ((socket: Socket, account: string) => void) | undefined;
  const docker = async (containerId: string, nodeId: string | undefined): Promise<(socket: Socket) => void> => {
    const stored = await moray.peek<Container>(BUCKETS.containers.name, containerId);
    // A node is told nothing of what is on another one.
    if (!stored || (nodeId !== undefined && stored.value.nodeId !== nodeId)) throw new CetusError('notFound', `No such container: ${containerId}`);
    const take = takeDocker;
    if (!take) throw new CetusError('unavailable', 'this process does not answer Docker clients');
    const {account} = stored.value;
    return (socket) => take(socket, account);
  };

  const listener = new Listener(options.listen, {
    join: facts => registry.join(facts),
    heartbeat: async beat => {
      const answer = await review.heartbeat(beat);
      const revoked = authority?.revocations.since(beat.revokedVersion);
      return revoked ? {...answer, revoked} : answer;
    },
    reports: async batch => {
      await registry.reporter(batch.nodeId, batch.bootGeneration);
      return applier.apply(batch);
    },
    assignments: question => assignments(moray, question),
    docker,
  }, log, authority && {
    enroll: request => authority.enroll(request), renew: (peer, request) => authority.renew(peer, request), admit: peer => authority.admit(peer),
    onRevoked: told => authority.revocations.onRevoked(told),
  });

  const connect = (node: Node): AgentClient => {
    const current = connections.get(node.id);
    if (current?.url === node.facts.agentUrl) return current.client;
    if (current) void current.close();
    const inner = options.connect?.(node) ?? new HttpAgentClient(node.name, node.facts.agentUrl, agentTls && {material: currentOf(agentTls), nodeId: node.id}, undefined,
      () => registry.stored(node.id)?.value.facts.bootGeneration);
    const client = watched(inner, outstanding);
    connections.set(node.id, {
      url: node.facts.agentUrl, client,
      close: async () => { if (inner instanceof HttpAgentClient) await inner.close(); },
      finish: async () => { if (inner instanceof HttpAgentClient) await inner.finish(); },
      cut: (why) => { if (inner instanceof HttpAgentClient) inner.cut(why); },
    });
    return client;
  };

  const agentOf = async (nodeId: string): Promise<AgentClient> => {
    const node = await registry.find(nodeId);
    if (node.liveness !== 'alive') throw unreachable(node);
    return connect(node);
  };

  return {
    async start() {
      await moray.open(BUCKETS.containers, BUCKETS.execs, BUCKETS.events, BUCKETS.addresses, BUCKETS.ports);
      await registry.start();
      await review.start();
      await authority?.start();
      await listener.listen();
      log.info({listen: listener.url}, 'agents can join');
    },
    async stop() {
      await listener.close();
      await review.stop();
      await tables.stop();
      await registry.stop();
      stopFollowing?.();
      await authority?.stop();
      await Promise.all([...connections.values(), ...retired].map(c => c.close()));
      connections.clear();
    },
    get listenUrl() { return listener.url; },
    ...(authority ? {tokens: {
      get url() { return options.joinUrl ?? listener.url; },
      create: request => authority.tokens.create(request), list: () => authority.tokens.list(), remove: id => authority.tokens.remove(id),
    }} : {}),
    onContainerChange: containerListener => applier.onContainerChange(containerListener),
    onDocker: take => { takeDocker = take; },
    node: idOrName => registry.find(idOrName),
    nodes: async () => registry.nodes(),
    *known() { for (const {value} of registry.all()) yield value; },
    reviews: () => review.reviews(),
    agent: agentOf,
    tables,
    away: registry.away,
    onLiveness: listener => {
      livenessListeners.add(listener);
      return () => livenessListeners.delete(listener);
    },
  };
}

function unreachable({id, name, liveness, livenessReason}: Node): CetusError {
  return new CetusError('unavailable', `node ${name} is ${liveness}: ${livenessReason}`, {info: {nodeId: id, liveness}});
}

/** The same client, whose tasks `outstanding` sees pass. */
function watched(client: AgentClient, outstanding: OutstandingTransitions): AgentClient {
  return new Proxy(client, {
    get(target, property) {
      if (property === 'task') return (...args: Parameters<AgentClient['task']>) => outstanding.track(args[0].body, target.task(...args));
      const value = Reflect.get(target, property) as unknown;
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}
