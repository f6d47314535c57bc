/** One scene per chain for the generic test: the type makes a chain without a scene an error. */
import {Readable} from 'node:stream';
import {FakeAgent} from '../../lib/fleet/fake-agent';
import type {TaskBody} from '../../lib/schema/agent';
import type {Container} from '../../lib/schema/container';
import type {ChainName, ChainParams} from '../../lib/schema/chains';
import {ACCOUNT, IMAGE_ID, nodeImage, REFERENCE, type Datacenter} from './world';

export interface Scene<N extends ChainName> {
  prepare(dc: Datacenter): Promise<void>;
  params(dc: Datacenter): ChainParams<N>;
  secrets?(): unknown;
  /** Events that a success leaves, in any order. */
  events: string[];
  /** The node cannot take its part back: after a failure something between before and after is right. */
  oneWay?: boolean;
  /** How a leftover begins that is right where a node did what it says that it refused. */
  tolerated?: string;
  /** After a takeover what came with the request is gone, and blobs on the node that nobody could tell of may stay (lib/jobs/README.md). */
  needsRequest?: boolean;
}

/** A second node, which the first can ask for images. */
async function elsewhere(dc: Datacenter): Promise<FakeAgent> {
  const other = new FakeAgent({facts: {nodeId: 'node-2', name: 'node-2'}});
  dc.others.push({...dc.node, id: 'node-2', name: 'node-2', facts: other.facts});
  dc.agent.peers = () => [other];
  return other;
}

/** One that may go elsewhere. */
const STEADY = (dc: Datacenter): Partial<Container> => {
  const {spec} = dc.draft('c1', 'web');
  return {spec: {...spec, hostConfig: {RestartPolicy: {Name: 'always'}}}};
};

const nothing = async (): Promise<void> => undefined;

export const SCENES: {[N in ChainName]: Scene<N>} = {
  'container.provision': {
    prepare: async (dc) => void (await dc.put('volume.create', {volume: dc.volume('v0', 'old')})),
    // A new named volume, an anonymous one, and one whose name exists already under another id.
    params: (dc) => dc.provision(dc.draft('c1', 'web', {volumeIds: ['v1', 'v2', 'v3'], anonymousVolumeIds: ['v2']}),
      [dc.volume('v1', 'data'), dc.volume('v2', 'anon', true), dc.volume('v3', 'old')]),
    events: ['container create', 'volume create', 'volume create'],
  },
  'container.start': {
    // One that has run: a start that is taken back leaves it `exited`, as it was.
    prepare: async (dc) => {
      await dc.container('c1', 'web', true);
      await dc.put('container.stop', {containerId: 'c1', timeoutSeconds: null, signal: null});
    },
    params: () => ({containerId: 'c1'}),
    events: ['network connect', 'container start'],
  },
  'container.stop': {
    prepare: (dc) => dc.container('c1', 'web', true),
    params: () => ({containerId: 'c1', timeoutSeconds: null, signal: null}),
    events: ['container kill', 'container die', 'container stop', 'network disconnect'],
    oneWay: true,
  },
  'container.restart': {
    prepare: (dc) => dc.container('c1', 'web', true),
    params: () => ({containerId: 'c1', timeoutSeconds: 1, signal: null}),
    events: ['container kill', 'container die', 'container stop', 'network disconnect', 'container start', 'network connect', 'container restart'],
    oneWay: true,
  },
  'container.kill': {
    prepare: (dc) => dc.container('c1', 'web', true),
    params: () => ({containerId: 'c1', signal: 'SIGKILL'}),
    events: ['container kill', 'container die', 'network disconnect'],
    oneWay: true,
  },
  'container.pause': {
    prepare: (dc) => dc.container('c1', 'web', true),
    params: () => ({containerId: 'c1'}),
    events: ['container pause'],
  },
  'container.unpause': {
    prepare: async (dc) => {
      await dc.container('c1', 'web', true);
      await dc.put('container.pause', {containerId: 'c1'});
    },
    params: () => ({containerId: 'c1'}),
    events: ['container unpause'],
  },
  'container.rename': {
    prepare: (dc) => dc.container('c1', 'web', true),
    params: () => ({containerId: 'c1', name: 'new'}),
    events: ['container rename'],
  },
  'container.update': {
    prepare: (dc) => dc.container('c1', 'web', true),
    params: () => ({containerId: 'c1', resources: {Memory: 2 ** 27}, restartPolicy: {Name: 'always'}, reservation: {memoryBytes: 2 ** 27, nanoCpus: 1e9, diskBytes: 0, pids: 0}}),
    events: ['container update'],
  },
  'container.destroy': {
    prepare: (dc) => dc.container('c1', 'web', true, {volumeIds: ['v1', 'v2'], anonymousVolumeIds: ['v2']}, [dc.volume('v1', 'data'), dc.volume('v2', 'anon', true)]),
    params: () => ({containerId: 'c1', force: true, removeVolumes: true}),
    events: ['container destroy', 'volume destroy', 'network disconnect', 'container kill', 'container die', 'volume unmount', 'volume unmount'],
    oneWay: true,
    // Its container cannot wait for it; it stays in the list, for a prune.
    tolerated: 'volume anon is not on its node',
  },
  'container.forget': {
    prepare: async (dc) => {
      await dc.container('c1', 'web', true, {volumeIds: ['v1', 'v2'], anonymousVolumeIds: ['v2']}, [dc.volume('v1', 'data'), dc.volume('v2', 'anon', true)]);
      await dc.second({liveness: 'fenced'});
    },
    params: (dc) => ({containerId: 'c1', from: dc.node.id, removeVolumes: true}),
    events: ['container destroy', 'volume destroy', 'network disconnect'],
  },
  'container.clear': {
    prepare: async (dc) => {
      const order = (body: TaskBody): Promise<unknown> => dc.agent.task({jobId: 'before', step: body.kind, epoch: 1, requestId: 'r', body});
      await order({kind: 'volume.ensure', volumeId: 'v1', name: 'v1', account: ACCOUNT, options: {}});
      await order({kind: 'container.create', spec: dc.draft('c1', 'web').spec, volumes: []});
      await dc.store.put('remains', `${dc.node.id}/c1`, {nodeId: dc.node.id, containerId: 'c1', volumeIds: ['v1'], at: ''});
    },
    params: (dc) => ({nodeId: dc.node.id, id: 'c1', kind: 'container'}),
    events: [],
    oneWay: true,
  },
  'container.evacuate': {
    prepare: async (dc) => {
      await dc.container('c1', 'web', true, STEADY(dc));
      const other = await dc.second({liveness: 'fenced'});
      other.images.set(IMAGE_ID, nodeImage('1'));
      await dc.store.put('images', `${ACCOUNT}/${IMAGE_ID}`, dc.image('1', [dc.node.id, 'node-2']));
    },
    params: (dc) => ({containerId: 'c1', from: dc.node.id}),
    events: ['container start'],
    oneWay: true,
  },
  'container.move': {
    prepare: async (dc) => {
      await dc.container('c1', 'web', true, STEADY(dc));
      await dc.second({availability: 'draining'});
    },
    params: (dc) => ({containerId: 'c1', from: dc.node.id}),
    events: ['container kill', 'container die', 'container stop', 'container start'],
    oneWay: true,
  },
  'image.pull': {
    prepare: nothing,
    params: () => ({account: ACCOUNT, reference: 'docker.io/library/pulled:latest'}),
    secrets: () => ({auth: {username: 'u', password: 'hunter2'}}),
    events: ['image pull'],
    needsRequest: true,
  },
  'image.load': {
    prepare: nothing,
    params: () => ({account: ACCOUNT, loadId: '11111111-1111-4111-8111-111111111111'}),
    secrets: () => ({archive: Readable.from(['tar'])}),
    events: ['image load'],
    needsRequest: true,
  },
  'image.import': {
    prepare: nothing,
    params: () => ({account: ACCOUNT, importId: '22222222-2222-4222-8222-222222222222', reference: 'docker.io/library/imported:latest', message: 'from a tar', config: {Cmd: ['sh']}}),
    secrets: () => ({archive: Readable.from(['tar'])}),
    events: ['image import', 'image tag'],
    needsRequest: true,
  },
  'image.commit': {
    prepare: (dc) => dc.container('c1', 'web', true),
    params: () => ({account: ACCOUNT, containerId: 'c1', reference: 'docker.io/library/committed:latest', author: 'jill', comment: 'as it stands', pause: true, config: {Cmd: ['sh']}, containerConfig: {}}),
    events: ['container pause', 'container unpause', 'container commit', 'image tag'],
    // Nobody can know its id.
    tolerated: 'the node keeps image ',
  },
  'image.take': {
    prepare: nothing,
    params: (dc) => ({
      account: ACCOUNT, takeId: '22222222-2222-4222-8222-222222222222', nodeId: dc.node.id, hold: 'hold',
      images: [{imageId: nodeImage('4').imageId, references: ['docker.io/library/built:latest'], repoDigests: []}],
    }),
    events: ['image create', 'image tag'],
    needsRequest: true,
  },
  'image.replicate': {
    prepare: async (dc) => {
      const other = await elsewhere(dc);
      await dc.store.put('images', `${ACCOUNT}/${nodeImage('5').imageId}`, dc.image('5', [other.facts.nodeId]));
      other.images.set(nodeImage('5').imageId, nodeImage('5'));
    },
    params: (dc) => ({account: ACCOUNT, imageId: nodeImage('5').imageId, nodeId: dc.node.id}),
    events: [],
  },
  'image.collect': {
    prepare: async (dc) => {
      await elsewhere(dc);
      await dc.store.put('images', `${ACCOUNT}/${IMAGE_ID}`, dc.image('1', [dc.node.id, 'node-2']));
    },
    params: (dc) => ({account: ACCOUNT, imageId: IMAGE_ID, nodeId: dc.node.id, why: 'the disk fills up'}),
    events: [],
    oneWay: true,
  },
  'image.remove': {
    prepare: nothing,
    params: () => ({account: ACCOUNT, imageId: IMAGE_ID, reference: REFERENCE, shown: 'busybox', force: false, noPrune: false}),
    events: ['image untag', 'image delete'],
    oneWay: true,
  },
  'network.create': {
    prepare: nothing,
    params: (dc) => ({network: dc.network('net2', 'back')}),
    events: ['network create'],
  },
  'network.remove': {
    prepare: async (dc) => void (await dc.put('network.create', {network: dc.network('net2', 'back')})),
    params: () => ({networkId: 'net2', account: ACCOUNT}),
    events: ['network destroy'],
    oneWay: true,
  },
  'network.connect': {
    prepare: async (dc) => {
      await dc.put('network.create', {network: dc.network('net2', 'back')});
      await dc.container('c1', 'web', true);
    },
    params: () => ({containerId: 'c1', networkId: 'net2', settings: {Aliases: ['db']}}),
    events: ['network connect'],
  },
  'network.disconnect': {
    prepare: (dc) => dc.container('c1', 'web', true),
    params: () => ({containerId: 'c1', networkId: 'net1', force: false}),
    events: ['network disconnect'],
    oneWay: true,
  },
  'volume.create': {
    prepare: nothing,
    params: (dc) => ({volume: dc.volume('v1', 'data')}),
    events: ['volume create'],
  },
  'volume.remove': {
    prepare: async (dc) => void (await dc.put('volume.create', {volume: dc.volume('v1', 'data')})),
    params: () => ({volumeId: 'v1', force: false}),
    events: ['volume destroy'],
    oneWay: true,
  },
};

/** Chains that go another way for some: the same troubles for those. */
export const VARIANTS: {name: ChainName; as: string; scene: Scene<ChainName>}[] = [
  {
    name: 'container.destroy', as: 'container.destroy of one that the node holds nothing of',
    scene: {
      prepare: (dc) => dc.container('c1', 'web', false, {requestedPorts: [], volumeIds: ['v1']}, [dc.volume('v1', 'data')]),
      params: () => ({containerId: 'c1', force: false, removeVolumes: true}),
      events: ['container destroy'],
      // Decided with its first commit: what a node refuses or does without saying so changes nothing of the outcome.
      oneWay: false,
    } satisfies Scene<'container.destroy'>,
  },
];
