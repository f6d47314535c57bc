/** A world for the verbs: moray in memory, the real chains and reports, and one node with an agent in memory. */
import {createHash} from 'node:crypto';
import {systemClock} from '../../lib/base/clock';
import {CetusError} from '../../lib/base/errors';
import {systemIds} from '../../lib/base/ids';
import {silentLog} from '../../lib/base/log';
import {createDatacenter, type RunningDatacenter} from '../../lib/datacenter';
import type {DatacenterConfig} from '../../lib/datacenter/context';
import type {Caller} from '../../lib/datacenter/verbs';
import {FakeAgent} from '../../lib/fleet/fake-agent';
import {OutstandingTransitions} from '../../lib/fleet/outstanding';
import {type ContainerListener, ReportApplier} from '../../lib/fleet/reports';
import {CHAINS} from '../../lib/jobs/chains/index';
import {createReconciler} from '../../lib/jobs/reconciler';
import {createJobServices, DEFAULT_JOB_CONFIG, nodeView} from '../../lib/jobs/services';
import {createMemoryMoray} from '../../lib/moray/memory';
import type {Moray} from '../../lib/moray/moray';
import {createPlacementIndex} from '../../lib/placement';
import {BUCKETS} from '../../lib/schema/buckets';
import type {Container} from '../../lib/schema/container';
import type {Node} from '../../lib/schema/node';
import type {Image, ImageRef} from '../../lib/schema/objects';
import type {RunRequest, Workflow} from '../../lib/workflow/chain';
import {createWorkflow} from '../../lib/workflow/workflow';

export interface World {
  dc: RunningDatacenter;
  moray: Moray;
  agent: FakeAgent;
  caller(account?: string): Caller;
  /** Every chain that ran, with its params. */
  ran: {workflow: string; params: unknown; secrets: unknown}[];
  image(account: string, reference: string, more?: Partial<Image>): Promise<Image>;
  /** The container's process ends, and the report arrives. */
  exit(id: string, code: number): Promise<void>;
  stored(id: string): Promise<Container>;
  /** The node becomes this, and everybody hears of it. */
  becomes(liveness: Node['liveness']): Promise<void>;
  stop(): Promise<void>;
}

let serial = 0;

export async function createWorld(config: Partial<DatacenterConfig> = {}): Promise<World> {
  const moray = createMemoryMoray();
  await moray.open(...Object.values(BUCKETS));
  const clock = systemClock;
  const log = silentLog();
  const applier = new ReportApplier({moray, log, clock, outstanding: new OutstandingTransitions(clock)});
  const applying = new Set<Promise<unknown>>();
  const agent = new FakeAgent({facts: {labels: {rack: 'r1'}}, onReport: (report) => {
    const work: Promise<unknown> = applier.apply({nodeId: 'node-1', bootGeneration: 1, reports: [report]}).finally(() => applying.delete(work));
    applying.add(work);
  }});
  const node: Node = {id: 'node-1', name: 'node-1', facts: agent.facts, availability: 'active', liveness: 'alive', livenessReason: '', livenessAt: '', labels: {}, joinedAt: ''};
  const away = new Map<string, Node>();
  const livenessListeners = new Set<(node: Node) => void>();
  const fleet = {
    away,
    onLiveness: (listener: (node: Node) => void) => {
      livenessListeners.add(listener);
      return () => livenessListeners.delete(listener);
    },
    node: async (id: string): Promise<Node> => {
      if (id !== node.id) throw new CetusError('notFound', `No such node: ${id}`);
      return node;
    },
    nodes: async () => [node],
    agent: async () => {
      if (node.liveness !== 'alive') throw new CetusError('unavailable', `node ${node.name} is ${node.liveness}`, {info: {liveness: node.liveness}});
      return agent;
    },
    onContainerChange: (listener: ContainerListener) => applier.onContainerChange(listener),
  };
  const placement = createPlacementIndex();
  placement.putNode(nodeView(node, undefined, DEFAULT_JOB_CONFIG));
  const real = createWorkflow({moray, chains: CHAINS, runnerId: 'runner', log, clock, services: createJobServices({fleet, placement})});
  const ran: World['ran'] = [];
  const workflow: Workflow = new Proxy(real as Workflow, {
    get: (target, name) => (name !== 'run' ? Reflect.get(target, name).bind(target) : (request: RunRequest) => {
      ran.push({workflow: request.workflow, params: structuredClone(request.params), secrets: request.secrets});
      return target.run(request);
    }),
  });
  const reconciler = createReconciler({moray, workflow: real, log});
  applier.onContainerChange(({container}) => reconciler.containerChanged(container));
  const image: World['image'] = async (account, reference, more = {}) => {
    serial += 1;
    const hex = createHash('sha256').update(String(serial)).digest('hex');
    const value: Image = {
      id: `sha256:${hex}`, account, manifestDigest: `sha256:${serial.toString(16).padStart(64, 'b')}`, manifestMediaType: '', manifest: {mediaType: '', digest: '', size: 1}, repoDigests: [],
      config: {architecture: 'amd64', os: 'linux', rootfs: {type: 'layers', diff_ids: []}, config: {Cmd: ['sh'], Env: ['PATH=/bin'], Volumes: {'/image-data': {}}, ExposedPorts: {'80/tcp': {}}}},
      layers: [], size: 10, nodes: ['node-1'], createdAt: '2026-01-01T00:00:00Z', addedAt: '', lastTaggedAt: '', ...more,
    };
    await moray.put(BUCKETS.images.name, `${account}/${value.id}`, value);
    agent.images.set(value.id, {imageId: value.id, manifest: value.manifest, resolvedDigest: value.manifestDigest, config: value.config, layers: [], size: 10, references: []});
    const ref: ImageRef = {account, reference, imageId: value.id, taggedAt: ''};
    if (reference) await moray.put(BUCKETS.image_refs.name, `${account}/${reference}`, ref);
    return value;
  };
  const dc = createDatacenter({
    moray, fleet, workflow, log, clock, ids: systemIds,
    config: {id: 'test-id', name: 'test', version: '0', allowHostNetwork: true, allowPrivileged: false, allowBinds: ['/srv'], ...config},
  });
  await real.start();
  await reconciler.start();
  await dc.start();
  return {
    dc, moray, agent, ran, image,
    caller: (account = 'default') => ({account, requestId: 'r'}),
    stored: async (id) => (await moray.get<Container>(BUCKETS.containers.name, id)).value,
    async exit(id, code) {
      agent.exit(id, code);
      await Promise.all(applying);
    },
    async becomes(liveness) {
      Object.assign(node, {liveness, livenessReason: liveness === 'alive' ? '' : 'no heartbeat for 50 s', livenessAt: '2026-01-01T00:00:00Z', facts: {...node.facts, agentUrl: 'https://198.19.0.11:1'}});
      await moray.put(BUCKETS.nodes.name, node.id, node);
      if (liveness === 'lost' || liveness === 'fenced') away.set(node.id, node);
      else away.delete(node.id);
      for (const listener of livenessListeners) listener(node);
    },
    async stop() {
      await Promise.all(applying);
      await dc.stop();
      await reconciler.stop();
      await real.stop();
      await moray.close();
    },
  };
}

export async function until(condition: () => Promise<boolean> | boolean, what: string): Promise<void> {
  for (const end = Date.now() + 5000; !(await condition());) {
    if (Date.now() > end) throw new Error(`never: ${what}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

export async function failure(work: Promise<unknown> | (() => unknown)): Promise<CetusError> {
  try {
    await (typeof work === 'function' ? work() : work);
  } catch (err) {
    if (err instanceof CetusError) return err;
    throw err;
  }
  throw new Error('it succeeded');
}

export async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}
