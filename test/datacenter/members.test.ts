/** What operators decide about nodes, over the real chains: labels, cordon, drain, tokens, and a node's removal with all that it had. */
import {silentLog} from '../../lib/base/log';
import {CetusError} from '../../lib/base/errors';
import {systemClock} from '../../lib/base/clock';
import {systemIds} from '../../lib/base/ids';
import {createDatacenter, type RunningDatacenter} from '../../lib/datacenter';
import type {MemberVerbs} from '../../lib/datacenter/verbs';
import type {AgentClient} from '../../lib/fleet/fleet';
import {CHAINS} from '../../lib/jobs/chains';
import {createJobServices} from '../../lib/jobs/services';
import {createMemoryMoray} from '../../lib/moray/memory';
import type {Moray} from '../../lib/moray/moray';
import {createPlacementIndex} from '../../lib/placement';
import {BUCKETS} from '../../lib/schema/buckets';
import type {Node} from '../../lib/schema/node';
import type {Volume} from '../../lib/schema/objects';
import type {RunRequest, Workflow} from '../../lib/workflow/chain';
import {createWorkflow} from '../../lib/workflow/workflow';
import {aContainer, someFacts} from '../fleet/objects';

const NODES = BUCKETS.nodes.name;
let moray: Moray;
let members: MemberVerbs;
let datacenter: RunningDatacenter;
let workflow: ReturnType<typeof createWorkflow>;
let asked: number;
/** The destruction of this container does not begin. */
let breakAt: string | undefined;

beforeEach(async () => {
  moray = createMemoryMoray();
  asked = 0;
  breakAt = undefined;
  const find = async (idOrName: string): Promise<Node> => {
    const found = (await moray.list<Node>(NODES, '(&)')).map((s) => s.value).find((n) => n.id === idOrName || n.name === idOrName);
    if (!found) throw new CetusError('notFound', `no node ${idOrName}`);
    return found;
  };
  const fleet = {
    node: find, nodes: async () => (await moray.list<Node>(NODES, '(&)')).map((s) => s.value),
    agent: async (): Promise<AgentClient> => {
      asked += 1;
      throw new CetusError('unavailable', 'nobody is there');
    },
  };
  const log = silentLog();
  workflow = createWorkflow({moray, chains: CHAINS, runnerId: 'runner', log, clock: systemClock, services: createJobServices({fleet, placement: createPlacementIndex()})});
  const breaking: Workflow = new Proxy(workflow as Workflow, {
    get: (target, name) => (name !== 'run' ? Reflect.get(target, name).bind(target) : (request: RunRequest) => {
      if ((request.params as {containerId?: string}).containerId === breakAt) throw new CetusError('unavailable', 'the endpoint died');
      return target.run(request);
    }),
  });
  datacenter = createDatacenter({moray, fleet, workflow: breaking, log, clock: systemClock, ids: systemIds, config: {id: 'dc', name: 'dc', version: '1', allowHostNetwork: true, allowPrivileged: true, allowBinds: 'all'}});
  await datacenter.start();
  await workflow.start();
  ({members} = datacenter.operator);
  await putNode({});
});
afterEach(async () => {
  await workflow.stop();
  await datacenter.stop();
  await moray.close();
});

const putNode = (part: Partial<Node>): Promise<unknown> => moray.put(NODES, part.id ?? 'n1', {
  id: 'n1', name: 'alpha', facts: someFacts({agentUrl: 'https://10.0.0.5:7444'}), availability: 'active', liveness: 'lost', livenessReason: 'no heartbeat for 60 s', livenessAt: '2026-01-01T00:00:00Z',
  labels: {}, joinedAt: '2026-01-01T00:00:00Z', ...part,
} satisfies Node);
const stored = async (): Promise<Node> => (await moray.get<Node>(NODES, 'n1')).value;
const volume = (id: string, nodeId: string): Volume => ({id, account: 'default', name: id, accountName: `default/${id}`, driver: 'local', options: {}, labels: {}, anonymous: false, nodeId, mountpoint: '', createdAt: ''});
const count = (bucket: string): Promise<number> => moray.count(bucket, '(&)');

async function inhabit(): Promise<void> {
  for (const id of ['c1', 'c2', 'c3']) {
    await moray.put(BUCKETS.containers.name, id, aContainer({id, name: id, nodeId: 'n1', node: 'alpha', status: id === 'c1' ? 'running' : 'exited', reservation: {memoryBytes: 1, nanoCpus: 0, diskBytes: 0, pids: 0}}));
    await moray.put(BUCKETS.addresses.name, `net/10.0.0.${id.slice(1)}`, {networkId: 'net', address: `10.0.0.${id.slice(1)}`, account: 'default', containerId: id, endpointId: 'e', mac: ''});
  }
  await moray.put(BUCKETS.containers.name, 'other', aContainer({id: 'other', name: 'other', nodeId: 'n2', node: 'beta'}));
  await moray.put(BUCKETS.volumes.name, 'v1', volume('v1', 'n1'));
  await moray.put(BUCKETS.volumes.name, 'v2', volume('v2', 'n2'));
  await moray.put(BUCKETS.reservations.name, 'n1', {nodeId: 'n1', total: {memoryBytes: 3, nanoCpus: 0, diskBytes: 0, pids: 0}, containers: {}});
  await moray.put(BUCKETS.identities.name, 'n1', {nodeId: 'n1', labels: {}, enrolledAt: '', certificates: ['4A', '4B'].map((serial) => ({serial, publicKey: '', notAfterMs: Date.now() + 1e9, certificate: ''}))});
}

test('labels are the operator\'s own, and win; those of the machine stay', async () => {
  await members.label('alpha', {add: {rack: 'r1', disk: 'ssd'}});
  expect((await members.label('n1', {add: {rack: 'r2'}, remove: ['disk', 'nosuch']})).labels).toEqual({rack: 'r2'});
  expect((await stored()).facts.labels).toEqual({});
  await expect(async () => members.label('alpha', {add: {'a b': 'x'}})).rejects.toMatchObject({kind: 'invalid'});
  await expect(members.label('nosuch', {})).rejects.toMatchObject({kind: 'notFound'});
});

test('cordon, drain and uncordon say why and since when, beside liveness that changes meanwhile', async () => {
  expect(await members.cordon('alpha', 'a loud fan')).toMatchObject({availability: 'cordoned', availabilityReason: 'a loud fan', availabilityAt: expect.stringMatching(/^20/)});
  await Promise.all([members.drain('alpha', ''), ...Array.from({length: 5}, async (_, i) => {
    const before = await moray.get<Node>(NODES, 'n1');
    await moray.put(NODES, 'n1', {...before.value, livenessReason: `beat ${i}`}, {etag: before.etag}).catch(() => undefined);
  })]);
  expect(await stored()).toMatchObject({availability: 'draining', livenessReason: expect.stringMatching(/^beat/)});
  expect(await stored()).not.toHaveProperty('availabilityReason');
  expect((await members.uncordon('alpha')).availability).toBe('active');
});

test('a node that lives, or has something, is not removed by the way', async () => {
  await inhabit();
  await expect(members.remove('alpha', false)).rejects.toMatchObject({kind: 'conflict', message: expect.stringMatching(/holds 3 containers \(default\/c1, default\/c2, default\/c3\) and 1 volume \(default\/v1\), which would be lost/)});
  await putNode({liveness: 'alive'});
  await expect(members.remove('alpha', false)).rejects.toMatchObject({kind: 'conflict', message: expect.stringContaining('is alive')});
  expect(await stored()).not.toHaveProperty('removing');
  expect(await count('revocations')).toBe(0);
  await putNode({facts: someFacts(), liveness: 'lost'});
  await expect(members.remove('alpha', true)).rejects.toMatchObject({kind: 'unsupported'});
});

test('an empty one goes without force', async () => {
  expect(await members.remove('alpha', false)).toEqual({id: 'n1', name: 'alpha', containers: [], volumes: []});
  await expect(members.remove('alpha', false)).rejects.toMatchObject({kind: 'notFound'});
});

test('by force all that it had goes, its certificates are revoked, nobody asks the node, and nothing else is touched', async () => {
  await inhabit();
  const gone = await members.remove('alpha', true);
  expect(gone.containers.map((c) => `${c.name} ${c.status}`).sort()).toEqual(['c1 running', 'c2 exited', 'c3 exited']);
  expect(gone.volumes).toEqual([{account: 'default', name: 'v1'}]);
  expect(await Promise.all(['nodes', 'identities', 'reservations', 'addresses', 'containers', 'volumes', 'revocations', 'locks'].map(count))).toEqual([0, 0, 0, 0, 1, 1, 2, 0]);
  expect(asked).toBe(0);
  const events = (await moray.list<{type: string; action: string; actorId: string}>(BUCKETS.events.name, '(&)')).map((s) => `${s.value.type} ${s.value.action} ${s.value.actorId}`);
  expect(events).toEqual(expect.arrayContaining(['container destroy c1', 'container destroy c2', 'container destroy c3', 'volume destroy v1']));
});

test('a removal that was broken off is marked, takes no changes, and ends when it is asked for again, without force', async () => {
  await inhabit();
  breakAt = 'c2';
  await expect(members.remove('alpha', true)).rejects.toBeDefined();
  expect(await stored()).toMatchObject({removing: true, availability: 'cordoned'});
  expect(await count('revocations')).toBe(2);
  await expect(members.uncordon('alpha')).rejects.toMatchObject({kind: 'conflict', message: expect.stringContaining('being removed')});
  breakAt = undefined;
  expect((await members.remove('alpha', false)).containers.map((c) => c.name)).toContain('c2');
  expect(await count('nodes')).toBe(0);
});

test('without an authority there are no tokens, and it is said what is missing', async () => {
  for (const ask of [() => members.tokens(), async () => members.createToken({})]) await expect(async () => ask()).rejects.toMatchObject({kind: 'unsupported', message: expect.stringContaining('key file')});
});
