/** A datacenter of one fake node over the store in memory, for the chains: what exists, what must never be left, and what can go wrong. */
import {Readable} from 'node:stream';
import {ZERO_TIME, type Clock} from '../../lib/base/clock';
import {CetusError} from '../../lib/base/errors';
import {silentLog} from '../../lib/base/log';
import {FakeAgent} from '../../lib/fleet/fake-agent';
import type {AgentClient, Fleet} from '../../lib/fleet/fleet';
import {OutstandingTransitions} from '../../lib/fleet/outstanding';
import {ReportApplier} from '../../lib/fleet/reports';
import {CHAINS} from '../../lib/jobs/chains/index';
import {createJobServices, DEFAULT_JOB_CONFIG, nodeView} from '../../lib/jobs/services';
import {createMemoryMoray} from '../../lib/moray/memory';
import type {Moray} from '../../lib/moray/moray';
import {createPlacementIndex} from '../../lib/placement/index';
import type {EnsureRequest, ImportRequest, LoadLine, NodeImage, Report, Task} from '../../lib/schema/agent';
import {BUCKETS, type BucketName} from '../../lib/schema/buckets';
import type {ChainName, ChainParams, ContainerDraft} from '../../lib/schema/chains';
import type {Container} from '../../lib/schema/container';
import type {Job} from '../../lib/schema/job';
import type {Node, NodeReservations, Remains} from '../../lib/schema/node';
import type {AddressLease, DatacenterEvent, Image, Network, PortLease, SubnetBlock, VniLease, Volume} from '../../lib/schema/objects';
import {createWorkflow, type RunningWorkflow, type WorkflowOptions} from '../../lib/workflow/workflow';
import {SeqIds, seeded, SimClock} from '../workflow/world';

export const ACCOUNT = 'default';
export const IMAGE_ID = `sha256:${'1'.repeat(64)}`;
export const REFERENCE = 'docker.io/library/busybox:latest';

/** `before`: the node did nothing and does not answer; `after`: it did; `twice`: the order arrives two times; `refuse`: this order fails for good; `done`: the same, although the node did it. */
export type CallFate = 'before' | 'after' | 'twice' | 'refuse' | 'done';

/** Calls that change a node, numbered, so that each can be made to go wrong. */
class DoomedAgent {
  calls = 0;
  readonly fates = new Map<number, CallFate>();
  private readonly refused = new Set<string>();

  constructor(private readonly agent: FakeAgent) {}

  heal(): void {
    this.fates.clear();
    this.refused.clear();
  }

  /** Of another agent too: calls are counted over all. */
  client(agent = this.agent): AgentClient {
    return new Proxy(agent as AgentClient, {
      get: (target, name) => {
        if (name === 'task') return (task: Task) => this.call(`${task.jobId}/${task.step}`, () => target.task(task));
        if (name === 'pull') return (request: {reference: string}) => this.stream('pull', () => target.pull(request as never, undefined));
        if (name === 'ensure') return (request: EnsureRequest) => this.stream('ensure', () => target.ensure(request, undefined));
        if (name === 'import') return (request: ImportRequest, archive: Readable) => this.stream('import', () => target.import(request, archive));
        if (name === 'load') return (archive: Readable) => this.stream('load', () => this.load(archive));
        const member = Reflect.get(target, name) as unknown;
        return typeof member === 'function' ? member.bind(target) : member;
      },
    });
  }

  private async call<T>(key: string, perform: () => Promise<T>): Promise<T> {
    const fate = this.fates.get((this.calls += 1));
    if (fate === 'done') await perform();
    if (fate === 'refuse' || fate === 'done') this.refused.add(key);
    if (this.refused.has(key)) throw new CetusError('internal', 'the node refuses');
    if (fate === 'before') throw new CetusError('unavailable', 'the node cannot be reached');
    if (fate === 'twice') await perform();
    const answer = await perform();
    if (fate === 'after') throw new CetusError('timeout', 'the node did not answer');
    return answer;
  }

  private async *stream<L>(key: string, open: () => AsyncIterable<L>): AsyncGenerator<L> {
    const lines = await this.call(key, async () => {
      const all: L[] = [];
      for await (const line of open()) all.push(line);
      return all;
    });
    yield* lines;
  }

  private async *load(archive: Readable): AsyncGenerator<LoadLine> {
    archive.resume();
    const image = nodeImage('3');
    this.agent.images.set(image.imageId, image);
    yield {stream: 'Loaded image: loaded:latest\n'};
    yield {result: {images: [{...image, references: ['docker.io/library/loaded:latest']}]}};
  }
}

export function nodeImage(digit: string): NodeImage {
  const manifest = {mediaType: 'application/vnd.oci.image.manifest.v1+json', digest: `sha256:${'a'.repeat(63)}${digit}`, size: 500};
  return {
    imageId: `sha256:${digit.repeat(64)}`, manifest, resolvedDigest: manifest.digest, layers: [], size: 1000, references: [],
    config: {architecture: 'amd64', os: 'linux', rootfs: {type: 'layers', diff_ids: []}, created: '2026-01-01T00:00:00Z'},
  };
}

const FACTS_CAPACITY = {memoryBytes: 8 * 2 ** 30, nanoCpus: 4e9, diskBytes: 100 * 2 ** 30, pids: 32_768};

/** A clock that tests can wait with: simulated, or the real one. */
export interface TestClock extends Clock {
  until<T>(promise: Promise<T>): Promise<T>;
  pass(ms: number): Promise<void>;
}

export class Datacenter {
  readonly clock: TestClock;
  readonly store: Moray;
  readonly placement = createPlacementIndex();
  readonly agent: FakeAgent;
  readonly doomed: DoomedAgent;
  private readonly pending: {nodeId: string; report: Report}[] = [];
  private readonly applier: ReportApplier;
  private runners = 0;
  node: Node;
  /** Nodes besides; the same agent answers for them, unless they have their own. */
  readonly others: Node[] = [];
  private readonly agents = new Map<string, FakeAgent>();

  /** `prompt`: reports reach the store as they are made; else only when `settle` is called. */
  constructor(private readonly prompt = false, world?: {clock: TestClock; store: Moray}) {
    this.clock = world?.clock ?? new SimClock();
    this.store = world?.store ?? createMemoryMoray({clock: this.clock});
    this.agent = new FakeAgent({clock: this.clock, onReport: (report) => {
      this.reported(this.node.id, report);
    }});
    this.doomed = new DoomedAgent(this.agent);
    this.applier = new ReportApplier({moray: this.store, log: silentLog(), clock: this.clock, outstanding: new OutstandingTransitions(this.clock)});
    const {facts} = this.agent;
    this.node = {id: facts.nodeId, name: facts.name, facts, availability: 'active', liveness: 'alive', livenessReason: '', livenessAt: '', labels: {}, joinedAt: ''};
    this.placement.putNode(nodeView(this.node, undefined, DEFAULT_JOB_CONFIG));
    this.agent.registry.set('docker.io/library/pulled:latest', nodeImage('2'));
    this.agent.built.set(nodeImage('4').imageId, nodeImage('4'));
  }

  /** A second node with an agent of its own, and both in the store. */
  async second(first: Partial<Node>): Promise<FakeAgent> {
    const agent = new FakeAgent({clock: this.clock, facts: {nodeId: 'node-2', name: 'node-2'}, onReport: (report) => this.reported('node-2', report)});
    const node: Node = {...this.node, id: 'node-2', name: 'node-2', facts: agent.facts};
    Object.assign(this.node, first);
    this.others.push(node);
    this.agents.set(node.id, agent);
    for (const one of [this.node, node]) {
      await this.store.put(BUCKETS.nodes.name, one.id, one);
      this.placement.putNode(nodeView(one, undefined, DEFAULT_JOB_CONFIG));
    }
    agent.peers = () => [this.agent];
    return agent;
  }

  private reported(nodeId: string, report: Report): void {
    if (this.prompt) void this.apply(nodeId, [report]);
    else this.pending.push({nodeId, report});
  }

  async open(): Promise<this> {
    await this.store.open(...Object.values(BUCKETS));
    await this.store.put('images', `${ACCOUNT}/${IMAGE_ID}`, this.image('1', [this.node.id]));
    await this.store.put('image_refs', `${ACCOUNT}/${REFERENCE}`, {account: ACCOUNT, reference: REFERENCE, imageId: IMAGE_ID, taggedAt: ''});
    this.agent.images.set(IMAGE_ID, nodeImage('1'));
    await this.put('network.create', {network: this.network('net1', 'front')});
    return this;
  }

  image(digit: string, nodes: string[]): Image {
    const {imageId, manifest, config, size} = nodeImage(digit);
    return {
      id: imageId, account: ACCOUNT, manifestDigest: manifest.digest, manifestMediaType: manifest.mediaType, manifest, repoDigests: [], config, layers: [], size, nodes,
      createdAt: '2026-01-01T00:00:00Z', addedAt: '2026-01-01T00:00:00Z', lastTaggedAt: '2026-01-01T00:00:00Z',
    };
  }

  network(id: string, name: string): Network {
    return {
      id, account: ACCOUNT, name, accountName: `${ACCOUNT}/${name}`, driver: 'bridge', scope: 'local', internal: false, attachable: false, ingress: false, enableIPv4: true,
      enableIPv6: false, subnet: '', gateway: '', ipRange: '', auxAddresses: {}, options: {}, ipamOptions: {}, labels: {}, bridgeName: `br-${id}`, predefined: false, createdAt: '',
    };
  }

  volume(id: string, name: string, anonymous = false): Volume {
    return {id, account: ACCOUNT, name, accountName: `${ACCOUNT}/${name}`, driver: 'local', options: {}, labels: {}, anonymous, nodeId: '', mountpoint: '', createdAt: ''};
  }

  draft(id: string, name: string, more: Partial<Container> = {}): ContainerDraft {
    const mounts = (more.volumeIds ?? []).map((volumeId) => ({type: 'volume' as const, volumeId, name: volumeId, destination: `/${volumeId}`, readOnly: false, noCopy: false, anonymous: false}));
    return {
      id, account: ACCOUNT, name, accountName: `${ACCOUNT}/${name}`, imageReference: 'busybox', imageId: IMAGE_ID, status: 'created', autoRemove: false, labels: {tier: 'web'},
      spec: {
        id, account: ACCOUNT, name, image: {id: IMAGE_ID, reference: 'busybox', manifestDigest: nodeImage('1').manifest.digest}, config: {}, hostConfig: {}, logConfig: {}, mounts,
        networkMode: 'networks', createdAt: '',
      },
      observation: {containerId: id, generation: 0, status: 'created', pid: 0, exitCode: 0, error: '', oomKilled: false, startedAt: ZERO_TIME, finishedAt: ZERO_TIME, restartCount: 0},
      networks: {front: {networkId: 'net1', settings: {}}}, attachments: [], requestedPorts: [{protocol: 'tcp', containerPort: 80, hostIp: '', hostPort: 8080}], publishedPorts: [],
      volumeIds: [], anonymousVolumeIds: [], reservation: {memoryBytes: 2 ** 26, nanoCpus: 1e9, diskBytes: 0, pids: 0}, createdAt: '2026-01-01T00:00:00Z', createdAtNs: '1767225600000000000', ...more,
    };
  }

  provision(draft: ContainerDraft, volumes: Volume[] = []): ChainParams<'container.provision'> {
    return {
      container: draft, volumes,
      placement: {account: ACCOUNT, containerName: draft.name, labels: draft.labels, reservation: draft.reservation, imageReference: draft.imageReference, imageId: draft.imageId, ports: [], expressions: []},
    };
  }

  fleet(): Fleet {
    return {
      node: async (idOrName) => {
        const found = [this.node, ...this.others].find((n) => n.id === idOrName || n.name === idOrName);
        if (!found) throw new CetusError('notFound', `No such node: ${idOrName}`);
        return found;
      },
      nodes: async () => [this.node, ...this.others],
      agent: async (nodeId) => {
        const node = [this.node, ...this.others].find((n) => n.id === nodeId);
        if (node && node.liveness !== 'alive' && this.agents.size) throw new CetusError('unavailable', `node ${nodeId} is ${node.liveness}`, {info: {nodeId, liveness: node.liveness}});
        return this.doomed.client(this.agents.get(nodeId));
      },
    };
  }

  runner(store: Moray = this.store, options: Partial<WorkflowOptions> = {}): RunningWorkflow {
    this.runners += 1;
    const random = seeded(this.runners);
    return createWorkflow({
      moray: store, chains: CHAINS, runnerId: `runner-${this.runners}`, log: silentLog(), clock: this.clock, ids: new SeqIds(this.runners), random, leaseMs: 9000, pollMs: 1000,
      services: createJobServices({fleet: this.fleet(), placement: this.placement, clock: this.clock, ids: new SeqIds(100 + this.runners), random}), ...options,
    });
  }

  /** Runs a chain to its end in a runner of its own; what a preparation needs. */
  async put<N extends ChainName>(workflow: N, params: ChainParams<N>, secrets?: unknown): Promise<unknown> {
    const result = await this.clock.until(this.runner().run({workflow, account: ACCOUNT, params, requestId: 'prepare', secrets}));
    await this.settle();
    return result;
  }

  async container(id: string, name: string, start: boolean, more: Partial<Container> = {}, volumes: Volume[] = []): Promise<void> {
    await this.put('container.provision', this.provision(this.draft(id, name, more), volumes));
    if (start) await this.put('container.start', {containerId: id});
  }

  /** Everything that the node has told is in the store. */
  async settle(): Promise<void> {
    const pending = this.pending.splice(0);
    for (const nodeId of new Set(pending.map((p) => p.nodeId))) await this.clock.until(this.apply(nodeId, pending.filter((p) => p.nodeId === nodeId).map((p) => p.report)));
    await this.clock.until(Promise.all(this.applying));
  }

  private readonly applying = new Set<Promise<unknown>>();
  private async apply(nodeId: string, reports: Report[]): Promise<void> {
    if (!reports.length) return;
    const work = this.applier.apply({nodeId, bootGeneration: 1, reports});
    this.applying.add(work);
    await work.finally(() => this.applying.delete(work));
  }

  async all<T>(bucket: BucketName): Promise<Map<string, T>> {
    return new Map((await this.store.list<T>(bucket, '(&)')).map((r) => [r.key, r.value]));
  }

  async jobs(): Promise<Job[]> { return [...(await this.all<Job>('jobs')).values()]; }
  async events(): Promise<string[]> { return [...(await this.all<DatacenterEvent>('events')).values()].map((e) => `${e.type} ${e.action}`); }

  /** What a person could see of the datacenter, without the accidents (times, generations, endpoint ids). */
  async digest(): Promise<unknown> {
    const containers = [...(await this.all<Container>('containers')).values()].map((c) => ({
      id: c.id, name: c.name, status: c.status, networks: Object.keys(c.networks), attached: c.attachments.map((a) => a.networkName), ports: c.publishedPorts.length,
      volumes: c.volumeIds, reservation: c.reservation, memory: c.spec.hostConfig.Memory ?? 0,
    }));
    return {
      containers,
      volumes: [...(await this.all<Volume>('volumes')).values()].map((v) => [v.id, v.name, v.mountpoint]),
      networks: [...(await this.all<Network>('networks')).keys()],
      images: [...(await this.all<Image>('images')).values()].map((i) => [i.id, i.nodes]),
      refs: [...(await this.all('image_refs')).keys()],
      node: {
        containers: [...this.agent.containers.values()].map((c) => [c.spec.id, c.spec.name, c.observation.status, c.spec.hostConfig.Memory ?? 0, c.attachments.length]),
        volumes: [...this.agent.volumes.keys()],
      },
      ...(this.agents.size ? {others: [...this.agents.values()].map((agent) => [...agent.containers.values()].map((c) => [c.spec.id, c.observation.status, c.attachments.length]))} : {}),
    };
  }

  /** Every way in which something could be left over, as sentences. */
  async leaks(options: {blobs?: boolean} = {}): Promise<string[]> {
    const found: string[] = [];
    const say = (bad: boolean, what: string): void => void (bad && found.push(what));
    const containers = await this.all<Container>('containers');
    const volumes = await this.all<Volume>('volumes');
    const images = await this.all<Image>('images');
    const networks = await this.all<Network>('networks');
    for (const job of await this.jobs()) say(!['succeeded', 'failed', 'canceled'].includes(job.execution), `job ${job.workflow} is ${job.execution}`);
    for (const [key] of await this.all('locks')) found.push(`lock ${key}`);
    const addresses = await this.all<AddressLease>('addresses');
    const ports = await this.all<PortLease>('ports');
    for (const c of containers.values()) {
      const node = (this.agents.get(c.nodeId) ?? this.agent).containers.get(c.id);
      // Nothing of it is anywhere but its places, until it arrives.
      if (c.moving && !c.moving.leaving && !node) continue;
      say(c.moving !== undefined, `container ${c.name} is still marked as moving`);
      say(Boolean(c.provisioning), `container ${c.name} is still being made`);
      say(!node, `container ${c.name} is not on its node`);
      say(node !== undefined && node.observation.status !== c.status, `container ${c.name} is ${c.status}, on the node ${node?.observation.status}`);
      say(node !== undefined && node.spec.name !== c.name, `container ${c.name} is called ${node?.spec.name} on the node`);
      const runs = c.status === 'running' || c.status === 'paused';
      say(!runs && c.attachments.length + c.publishedPorts.length > 0, `container ${c.name} holds places and does not run`);
      for (const a of c.attachments) say(addresses.get(`${a.networkId}/${a.address}`)?.containerId !== c.id, `container ${c.name} uses ${a.address} without a lease`);
      for (const a of c.attachments) {
        const lease = addresses.get(`${a.networkId}/${a.address}`);
        say(lease?.nodeId !== c.nodeId || JSON.stringify(lease.aliases) !== JSON.stringify(a.aliases), `the lease of ${a.address} says that ${lease?.aliases?.[0]} is on ${lease?.nodeId}, it is ${c.name} on ${c.nodeId}`);
      }
      say(runs && node !== undefined && node.attachments.length !== c.attachments.length, `container ${c.name} is plugged in ${node?.attachments.length} times, not ${c.attachments.length}`);
      for (const id of c.volumeIds) say(!volumes.has(id), `container ${c.name} uses volume ${id} that is gone`);
    }
    // Noted, and taken away when the node is back.
    const noted = new Set([...(await this.all<Remains>('remains')).values()].flatMap((r) => [r.containerId, ...r.volumeIds]));
    for (const id of this.agent.containers.keys()) say(!containers.has(id) && !noted.has(id), `the node keeps container ${id}`);
    for (const [nodeId, agent] of this.agents) for (const id of agent.containers.keys()) say(containers.get(id)?.nodeId !== nodeId && !noted.has(id), `${nodeId} keeps container ${id}`);
    for (const [key, lease] of addresses) say(!containers.get(lease.containerId)?.attachments.some((a) => `${a.networkId}/${a.address}` === key), `address ${key} is held for nothing`);
    for (const [key, lease] of ports) say(!containers.get(lease.containerId)?.publishedPorts.some((p) => p.hostPort === lease.hostPort), `port ${key} is held for nothing`);
    for (const row of (await this.all<NodeReservations>('reservations')).values()) {
      for (const id of Object.keys(row.containers)) say(!containers.has(id), `capacity is reserved for container ${id}`);
      const sum = Object.values(row.containers).reduce((n, r) => n + r.memoryBytes, 0);
      say(sum !== row.total.memoryBytes || sum > FACTS_CAPACITY.memoryBytes, `the reservations add up to ${sum}, not ${row.total.memoryBytes}`);
    }
    const rows = await this.all<NodeReservations>('reservations');
    for (const c of containers.values()) say((rows.get(c.nodeId)?.containers[c.id]?.memoryBytes ?? 0) !== c.reservation.memoryBytes, `container ${c.name} has another reservation than its node's row`);
    for (const v of volumes.values()) {
      say(Boolean(v.removing), `volume ${v.name} is still marked`);
      say(v.mountpoint !== '' && !this.agent.volumes.has(v.id), `volume ${v.name} is not on its node`);
    }
    for (const id of this.agent.volumes.keys()) say(!volumes.has(id) && !noted.has(id), `the node keeps volume ${id}`);
    for (const i of images.values()) {
      say(Boolean(i.removing) || i.leaving !== undefined, `image ${i.id} is still marked`);
      say(i.nodes.includes(this.node.id) && !this.agent.images.has(i.id), `image ${i.id} is not on its node`);
    }
    for (const id of this.agent.images.keys()) say(!options.blobs && !images.has(`${ACCOUNT}/${id}`), `the node keeps image ${id}`);
    for (const n of networks.values()) say(Boolean(n.removing), `network ${n.name} is still marked`);
    const taken = [...(await this.all<SubnetBlock>('subnets')).values()].flatMap((b) => Object.entries(b.networks));
    for (const [id, subnet] of taken) say(networks.get(id)?.subnet !== subnet, `subnet ${subnet} is taken for nothing`);
    for (const n of networks.values()) say(n.subnet !== '' && !taken.some(([id]) => id === n.id), `network ${n.name} has no subnet of its own`);
    const vnis = await this.all<VniLease>('vnis');
    for (const {vni, networkId} of vnis.values()) say(networks.get(networkId)?.vni !== vni, `segment ${vni} is taken for nothing`);
    for (const n of networks.values()) say(n.subnet !== '' && vnis.get(String(n.vni))?.networkId !== n.id, `network ${n.name} has no segment of its own`);
    return found;
  }
}
