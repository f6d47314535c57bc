/** One node, one container, one job: enough for every operation of the operator's API to have an answer. */
import {CetusError} from '../../lib/base/errors';
import {ZERO_TIME} from '../../lib/base/clock';
import type {Datacenter} from '../../lib/datacenter/verbs';
import type {Container} from '../../lib/schema/container';
import type {Job} from '../../lib/schema/job';
import type {Node} from '../../lib/schema/node';

const at = '2026-01-02T03:04:05.000000006Z';
const reservation = {memoryBytes: 64 << 20, nanoCpus: 5e8, diskBytes: 0, pids: 0};

export const node: Node = {
  id: 'node-1', name: 'rack1-a', availability: 'active', liveness: 'alive', livenessReason: 'heartbeats arrive', livenessAt: at, labels: {rack: 'r1'}, joinedAt: at,
  facts: {
    nodeId: 'node-1', name: 'rack1-a', platform: 'linux/amd64', architecture: 'amd64', kernelVersion: '6.1', operatingSystem: 'Debian', osType: 'linux', cpus: 2,
    memoryBytes: 2 ** 34, diskBytes: 2 ** 40, pids: 32768, cgroupVersion: 1, cgroupDriver: 'cgroupfs', containerdVersion: '1.6.20', runcVersion: '1.1', snapshotter: 'overlayfs',
    agentUrl: 'unix:///x', agentVersion: '1', labels: {}, bootGeneration: 1,
  },
};

export const container: Container = {
  id: 'c'.repeat(64), account: 'default', name: 'web', accountName: 'default/web', imageReference: 'busybox', imageId: `sha256:${'1'.repeat(64)}`, node: node.name, nodeId: node.id,
  spec: {} as never, status: 'running', autoRemove: false, labels: {}, networks: {}, attachments: [], requestedPorts: [], publishedPorts: [], volumeIds: [], anonymousVolumeIds: [],
  observation: {containerId: 'c'.repeat(64), generation: 1, status: 'running', pid: 1, exitCode: 0, error: '', oomKilled: false, startedAt: at, finishedAt: ZERO_TIME, restartCount: 0},
  reservation, provisionJobId: 'job-1', createdAt: at, createdAtNs: '1767323045000000006',
  placement: {
    nodeId: node.id, node: node.name, considered: 2, alternatives: [], rejections: [{filter: 'capacity', detail: 'memory', count: 1, examples: ['rack1-b']}],
    score: {nodeId: node.id, node: node.name, total: 1.5, parts: {spreadAccount: 1, spreadLabel: 0, imageLocality: 0.5, utilization: 0, soft: 0}},
  },
};

export const job: Job = {
  id: 'job-1', workflow: 'container.provision', version: 1, target: `container/${container.id}`, account: 'default', params: {}, execution: 'succeeded', lease: null,
  cancelRequested: false, revision: 2, requestId: 'r-1', createdAt: at, createdAtNs: '1767323045000000006', startedAt: at, endedAt: '2026-01-02T03:04:05.045000006Z',
  steps: [{step: 'place', state: 'succeeded', tries: 1, epoch: 1, startedAt: at, endedAt: '2026-01-02T03:04:05.005000006Z', output: {placement: container.placement}}],
};

const known = <T>(what: string, wanted: string, names: string[], value: T): T => {
  if (!names.includes(wanted)) throw new CetusError('notFound', `no such ${what}: ${wanted}`);
  return value;
};
const token = {id: 'abcdefghij', createdAt: at, expiresAtMs: 1_767_326_645_000, labels: {rack: 'r1'}};
const stored = {bucket: 'containers', key: container.id, value: container, etag: '1', mtime: 1};

export function fakeDatacenter(): Pick<Datacenter, 'operator' | 'system'> {
  return {
    system: {ping: async () => undefined} as Datacenter['system'],
    operator: {
      nodes: async () => [node],
      ingresses: async () => [{endpoint: 'front:7100', addresses: ['10.0.0.1'], duty: 'serving', open: 2, refused: [{protocol: 'tcp', address: '0.0.0.0', port: 8080, containerId: container.id, reason: 'another program of this machine has the port'}]}],
      node: async (name) => known('node', name, [node.name, node.id], {node, reserved: reservation, containers: 1, running: 1, certificates: [{serial: '4A', notAfter: at}], staying: [{id: container.id, name: 'web', reason: 'it is paused'}]}),
      members: {
        label: async (name, {add = {}, remove = []}) => known('node', name, [node.name], {...node, labels: Object.fromEntries(Object.entries({...node.labels, ...add}).filter(([k]) => !remove.includes(k)))}),
        cordon: async (name, reason) => known('node', name, [node.name], {...node, availability: 'cordoned', availabilityReason: reason, availabilityAt: at}),
        uncordon: async (name) => known('node', name, [node.name], node),
        drain: async (name, reason) => known('node', name, [node.name], {...node, availability: 'draining', availabilityReason: reason, availabilityAt: at}),
        remove: async (name, force) => {
          if (!force && name === 'busy') throw new CetusError('conflict', 'node busy holds 1 container');
          return {id: node.id, name: node.name, containers: [{id: container.id, account: 'default', name: 'web', status: 'running'}], volumes: [{account: 'default', name: 'data'}]};
        },
        createToken: async ({ttlSeconds = 3600, labels = {}}) => ({...token, expiresAtMs: Date.now() + ttlSeconds * 1000, labels, token: `cetus1.${token.id}.${'s'.repeat(32)}.${'f'.repeat(43)}`, url: 'https://10.0.0.1:7443'}),
        tokens: async () => [token, {...token, id: 'usedusedus', used: {nodeId: node.id, publicKey: 'aa', at}}],
        removeToken: async (id) => known('token', id, [token.id], {id}),
        certificates: async () => [], running: async () => 1,
      },
      inventory: async () => ({containers: [{id: container.id, observation: container.observation}], snapshots: [], namespaces: [], bridges: [], publishedPorts: [], volumes: [], images: [], execs: []}),
      containers: async () => [container],
      container: async (name) => known('container', name, [container.name, container.id], container),
      volumes: async () => [
        {id: 'v'.repeat(64), account: 'default', name: 'data', accountName: 'default/data', driver: 'local', options: {}, labels: {}, anonymous: false, nodeId: node.id, node: node.name, mountpoint: '/v', createdAt: at},
        {id: 'w'.repeat(64), account: 'default', name: 'unused', accountName: 'default/unused', driver: 'local', options: {}, labels: {}, anonymous: false, nodeId: '', mountpoint: '', createdAt: at},
      ],
      jobs: async () => [job],
      job: async (id) => known('job', id, [job.id], job),
      cancelJob: async (id) => known('job', id, [job.id], job),
      retryJob: async (id) => known('job', id, [job.id], job),
      why: async (name) => known('container', name, [container.name], {container, job}),
      buckets: async () => [{name: 'containers', version: 1, objects: 1}],
      objects: async () => [stored],
      object: async (_bucket, key) => known('object', key, [container.id], stored),
    },
  };
}
