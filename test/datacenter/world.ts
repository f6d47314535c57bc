/**
 * A world for the verbs: moray in memory, one node with an agent in memory, and chains of a few lines each that do what lib/schema/chains.ts
 * promises on the good path. What the real chains refuse is their own tests' matter.
 */
import {systemClock} from '../../lib/base/clock';
import {CetusError} from '../../lib/base/errors';
import {systemIds} from '../../lib/base/ids';
import {silentLog} from '../../lib/base/log';
import {createDatacenter, type RunningDatacenter} from '../../lib/datacenter';
import type {DatacenterConfig} from '../../lib/datacenter/context';
import type {Caller} from '../../lib/datacenter/verbs';
import {FakeAgent} from '../../lib/fleet/fake-agent';
import type {Fleet} from '../../lib/fleet/fleet';
import {applyObservation} from '../../lib/fleet/observe';
import {createMemoryMoray} from '../../lib/moray/memory';
import {eq} from '../../lib/moray/filter';
import type {Moray} from '../../lib/moray/moray';
import {BUCKETS} from '../../lib/schema/buckets';
import type {ChainTypes} from '../../lib/schema/chains';
import type {Container} from '../../lib/schema/container';
import type {Node} from '../../lib/schema/node';
import type {Image, ImageRef, Network, Volume} from '../../lib/schema/objects';
import type {TaskBody} from '../../lib/schema/agent';
import type {RunRequest, Workflow} from '../../lib/workflow/chain';

export interface World {
  dc: RunningDatacenter;
  moray: Moray;
  agent: FakeAgent;
  caller(account?: string): Caller;
  /** Every chain that ran, with its params. */
  ran: {workflow: string; params: unknown; secrets: unknown}[];
  image(account: string, reference: string, more?: Partial<Image>): Promise<Image>;
  /** The container's process ends, and the report arrives; `tell` false: only the store hears of it. */
  exit(id: string, code: number, tell?: boolean): Promise<void>;
  stored(id: string): Promise<Container>;
}

let serial = 0;

export async function createWorld(config: Partial<DatacenterConfig> = {}): Promise<World> {
  const moray = createMemoryMoray();
  await moray.open(...Object.values(BUCKETS));
  const agent = new FakeAgent();
  const node: Node = {id: 'node-1', name: 'node-1', facts: agent.facts, availability: 'active', liveness: 'alive', livenessReason: '', livenessAt: '', labels: {}, joinedAt: ''};
  const listeners = new Set<(change: {container: Container; actions: never[]}) => void>();
  const fleet: Fleet & {onContainerChange(l: (change: {container: Container; actions: never[]}) => void): () => void} = {
    node: async (id) => {
      if (id !== node.id) throw new CetusError('notFound', `No such node: ${id}`);
      return node;
    },
    nodes: async () => [node],
    agent: async () => agent,
    onContainerChange: (l) => {
      listeners.add(l);
      return () => listeners.delete(l);
    },
  };
  const ran: World['ran'] = [];
  let jobs = 0;
  const container = async (id: string): Promise<{value: Container; etag: string}> => moray.get<Container>(BUCKETS.containers.name, id);
  const task = async (body: TaskBody): Promise<void> => {
    const {observation} = await agent.task({jobId: `job-${(jobs += 1)}`, step: 's', epoch: 1, requestId: 'r', body});
    if (!observation) return;
    const {value, etag} = await container(observation.containerId);
    const after = applyObservation(value, observation);
    if (after) await moray.put(BUCKETS.containers.name, value.id, after, {etag});
  };
  const chains: {[N in keyof ChainTypes]?: (params: ChainTypes[N]['params'], request: RunRequest) => Promise<ChainTypes[N]['result']>} = {
    'container.provision': async ({container: draft, volumes}) => {
      for (const v of volumes) await moray.put(BUCKETS.volumes.name, v.id, {...v, nodeId: 'node-1'}, {etag: null});
      try {
        await moray.put<Container>(BUCKETS.containers.name, draft.id, {...draft, node: 'node-1', nodeId: 'node-1', provisionJobId: 'j', placement: null}, {etag: null});
      } catch (err) {
        const [other] = await moray.list<Container>(BUCKETS.containers.name, eq('accountName', draft.accountName));
        throw new CetusError('conflict', `Conflict. The container name "/${draft.name}" is already in use by container "${other?.value.id}". You have to remove (or rename) that container to be able to reuse that name.`, {cause: err});
      }
      await task({kind: 'container.create', spec: draft.spec, volumes: []});
      return {containerId: draft.id, nodeId: 'node-1', node: 'node-1'};
    },
    'container.start': async ({containerId}) => (await task({kind: 'container.start', containerId, networks: [], attachments: [], ports: []}), null),
    'container.stop': async ({containerId}) => (await task({kind: 'container.stop', containerId, timeoutSeconds: null, signal: null}), null),
    'container.restart': async ({containerId}) => {
      await task({kind: 'container.stop', containerId, timeoutSeconds: null, signal: null});
      await task({kind: 'container.start', containerId, networks: [], attachments: [], ports: []});
      return null;
    },
    'container.kill': async ({containerId, signal}) => (await task({kind: 'container.kill', containerId, signal}), null),
    'container.pause': async ({containerId}) => (await task({kind: 'container.pause', containerId}), null),
    'container.unpause': async ({containerId}) => (await task({kind: 'container.unpause', containerId}), null),
    'container.update': async ({containerId, resources, restartPolicy}) => (await task({kind: 'container.update', containerId, resources, restartPolicy}), null),
    'container.rename': async ({containerId, name}) => {
      const {value, etag} = await container(containerId);
      await moray.put(BUCKETS.containers.name, containerId, {...value, name, accountName: `${value.account}/${name}`}, {etag});
      return null;
    },
    'container.destroy': async ({containerId, force}) => {
      if (!(await moray.peek(BUCKETS.containers.name, containerId))) throw new CetusError('notFound', `No such container: ${containerId}`);
      await task({kind: 'container.remove', containerId, force});
      await moray.delete(BUCKETS.containers.name, containerId);
      return null;
    },
    'network.create': async ({network}) => {
      const made: Network = {...network, ...(network.driver === 'bridge' && !network.subnet ? {subnet: `172.${(jobs += 1) + 17}.0.0/16`, gateway: '172.17.0.1'} : {})};
      await moray.put(BUCKETS.networks.name, network.id, made, {etag: null});
      return made;
    },
    'network.remove': async ({networkId}) => (await moray.delete(BUCKETS.networks.name, networkId), null),
    'network.connect': async ({containerId, networkId, settings}) => {
      const {value, etag} = await container(containerId);
      const network = (await moray.get<Network>(BUCKETS.networks.name, networkId)).value;
      await moray.put(BUCKETS.containers.name, containerId, {...value, networks: {...value.networks, [network.name]: {networkId, settings}}}, {etag});
      return null;
    },
    'network.disconnect': async ({containerId, networkId}) => {
      const {value, etag} = await container(containerId);
      await moray.put(BUCKETS.containers.name, containerId, {...value, networks: Object.fromEntries(Object.entries(value.networks).filter(([, n]) => n.networkId !== networkId))}, {etag});
      return null;
    },
    'volume.create': async ({volume}) => {
      const [same] = await moray.list<Volume>(BUCKETS.volumes.name, eq('accountName', volume.accountName));
      return same?.value ?? (await moray.put(BUCKETS.volumes.name, volume.id, volume, {etag: null})).value;
    },
    'volume.remove': async ({volumeId}) => (await moray.delete(BUCKETS.volumes.name, volumeId), null),
    'image.pull': async ({account, reference}, request) => {
      if (reference.includes('missing')) throw new CetusError('notFound', 'manifest unknown');
      request.onProgress?.({status: 'Pulling fs layer', id: 'aaa'});
      const made = await image(account, reference);
      return {imageId: made.id, reference, digest: made.manifestDigest, upToDate: false};
    },
    'image.load': async () => ({images: [{imageId: 'sha256:x', references: ['docker.io/library/loaded:1']}]}),
    'image.remove': async ({account, imageId, reference}) => {
      if (reference) await moray.delete(BUCKETS.image_refs.name, `${account}/${reference}`);
      await moray.delete(BUCKETS.images.name, `${account}/${imageId}`);
      return [{Deleted: imageId}];
    },
  };
  const no = (): never => {
    throw new CetusError('notFound', 'No such job');
  };
  const workflow: Workflow = {
    run: async <R>(request: RunRequest): Promise<R> => {
      ran.push({workflow: request.workflow, params: structuredClone(request.params), secrets: request.secrets});
      return (chains as Record<string, (p: unknown, r: RunRequest) => Promise<unknown>>)[request.workflow]!(request.params, request) as Promise<R>;
    },
    enqueue: async () => no(), wait: async () => no(), cancel: async () => no(), get: async () => no(), retryStuck: async () => no(),
  };
  const image: World['image'] = async (account, reference, more = {}) => {
    serial += 1;
    const hex = serial.toString(16).padStart(64, 'a');
    const value: Image = {
      id: `sha256:${hex}`, account, manifestDigest: `sha256:${serial.toString(16).padStart(64, 'b')}`, manifestMediaType: '', manifest: {mediaType: '', digest: '', size: 1}, repoDigests: [],
      config: {architecture: 'amd64', os: 'linux', rootfs: {type: 'layers', diff_ids: []}, config: {Cmd: ['sh'], Env: ['PATH=/bin'], Volumes: {'/image-data': {}}, ExposedPorts: {'80/tcp': {}}}},
      layers: [], size: 10, nodes: ['node-1'], createdAt: '2026-01-01T00:00:00Z', addedAt: '', lastTaggedAt: '', ...more,
    };
    await moray.put(BUCKETS.images.name, `${account}/${value.id}`, value);
    const ref: ImageRef = {account, reference, imageId: value.id, taggedAt: ''};
    if (reference) await moray.put(BUCKETS.image_refs.name, `${account}/${reference}`, ref);
    return value;
  };
  const dc = createDatacenter({
    moray, fleet, workflow, log: silentLog(), clock: systemClock, ids: systemIds,
    config: {name: 'test', version: '0', allowHostNetwork: true, allowPrivileged: false, allowBinds: ['/srv'], ...config},
  });
  await dc.start();
  return {
    dc, moray, agent, ran, image,
    caller: (account = 'default') => ({account, requestId: 'r'}),
    stored: async (id) => (await container(id)).value,
    async exit(id, code, tell = true) {
      agent.exit(id, code);
      const {value, etag} = await container(id);
      const after = applyObservation(value, agent.containers.get(id)!.observation)!;
      await moray.put(BUCKETS.containers.name, id, after, {etag});
      // As the reconciler of lib/jobs, a moment later.
      if (after.autoRemove) setImmediate(() => void chains['container.destroy']!({containerId: id, force: false, removeVolumes: true}, {} as RunRequest));
      if (tell) for (const l of listeners) l({container: after, actions: []});
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
