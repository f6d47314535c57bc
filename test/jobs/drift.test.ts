/** What differs between a node and the store is found, named, mended where that is nobody's guess, and forgotten when it is over: over a fake node and the store in memory. */
import {silentLog} from '../../lib/base/log';
import type {Fleet} from '../../lib/fleet/fleet';
import {createDriftKeeper, type DriftKeeper} from '../../lib/jobs/drift-keeper';
import {createEvacuator} from '../../lib/jobs/evacuator';
import {BUCKETS} from '../../lib/schema/buckets';
import type {Container} from '../../lib/schema/container';
import type {Node} from '../../lib/schema/node';
import type {AddressLease, Image} from '../../lib/schema/objects';
import {ACCOUNT, Datacenter, IMAGE_ID} from './world';

let dc: Datacenter;
let keeper: DriftKeeper;

beforeEach(async () => {
  dc = await new Datacenter().open();
  await dc.store.put(BUCKETS.nodes.name, dc.node.id, dc.node);
  const fleet = {agent: async () => dc.agent} as unknown as Fleet;
  keeper = createDriftKeeper({moray: dc.store, fleet, log: silentLog(), clock: dc.clock, nodes: () => [dc.node], acts: () => true});
});

/** As an operator reads it. */
async function drift(): Promise<string[]> {
  await dc.clock.until(keeper.compare(dc.node));
  const {value} = await dc.store.get<Node>(BUCKETS.nodes.name, dc.node.id);
  return (value.drift?.findings ?? []).map(({kind, name, id, done}) => `${kind} ${name || id}${done ? `; ${done}` : ''}`).sort();
}
const get = async (id: string): Promise<Container> => (await dc.store.get<Container>(BUCKETS.containers.name, id)).value;

test('a node that has what it should differs in nothing, and nothing is written', async () => {
  await dc.container('c1', 'web', true, {volumeIds: ['v1']}, [dc.volume('v1', 'data')]);
  const {etag} = await dc.store.get(BUCKETS.nodes.name, dc.node.id);
  expect(await drift()).toEqual([]);
  expect((await dc.store.get(BUCKETS.nodes.name, dc.node.id)).etag).toBe(etag);
});

test('a container that its node has lost is shown as exited with the reason, its places are free, and the finding ends with its removal', async () => {
  await dc.container('c1', 'web', true);
  dc.agent.containers.delete('c1');
  for (const _look of [1, 2]) {
    expect(await drift()).toEqual([`container.missing ${ACCOUNT}/web; shown as exited`]);
    expect(await get('c1')).toMatchObject({status: 'exited', attachments: [], observation: {exitCode: 255, error: `node ${dc.node.name}: its node does not have it any more`}});
  }
  expect([...(await dc.all<AddressLease>('addresses')).values()]).toEqual([]);
  await dc.put('container.destroy', {containerId: 'c1', force: false, removeVolumes: false});
  expect(await drift()).toEqual([]);
  expect((await dc.store.get<Node>(BUCKETS.nodes.name, dc.node.id)).value.drift).toBeUndefined();
});

test('what is only under way is no finding', async () => {
  await dc.container('c1', 'web', false);
  const {value, etag} = await dc.store.get<Container>(BUCKETS.containers.name, 'c1');
  dc.agent.containers.delete('c1');
  for (const state of [{provisioning: true}, {status: 'removing'}, {moving: {from: 'n', since: '', start: true}}] as Partial<Container>[]) {
    await dc.store.put(BUCKETS.containers.name, 'c1', {...value, ...state});
    expect(await drift()).toEqual([]);
  }
  expect(etag).not.toBe('');
  await dc.store.put(BUCKETS.containers.name, 'c1', value);
  // Gone between the two looks.
  const looking = keeper.compare(dc.node);
  await dc.clock.pass(1_000);
  await dc.store.delete(BUCKETS.containers.name, 'c1');
  expect(await dc.clock.until(looking)).toEqual([]);
});

test('a transition whose report never came is recorded', async () => {
  await dc.container('c1', 'web', true);
  dc.agent.exit('c1', 7);
  expect((await get('c1')).status).toBe('running');
  expect(await drift()).toEqual([`container.state ${ACCOUNT}/web; recorded`]);
  expect(await get('c1')).toMatchObject({status: 'exited', attachments: [], observation: {exitCode: 7}});
  expect(await drift()).toEqual([]);
});

test('what the store does not know is reported and left alone; what is another node\'s is taken away', async () => {
  await dc.container('c1', 'web', false);
  await dc.container('c2', 'other', false);
  await dc.put('volume.create', {volume: dc.volume('v1', 'data')});
  dc.agent.volumes.set('v9', {} as never);
  await dc.store.delete(BUCKETS.containers.name, 'c1');
  const {value} = await dc.store.get<Container>(BUCKETS.containers.name, 'c2');
  await dc.store.put(BUCKETS.containers.name, 'c2', {...value, nodeId: 'node-2', node: 'node-2'});
  expect(await drift()).toEqual([`container.moved ${ACCOUNT}/other; it is taken away there`, 'container.unknown c1', 'volume.unknown v9']);
  const workflow = dc.runner();
  await workflow.start();
  const evacuator = createEvacuator({moray: dc.store, workflow, log: silentLog(), clock: dc.clock, nodes: () => [dc.node], acts: () => true});
  await dc.clock.until(evacuator.look());
  await dc.clock.until(workflow.stop());
  expect([...dc.agent.containers.keys()]).toEqual(['c1']);
  expect(await drift()).toEqual(['container.unknown c1', 'volume.unknown v9']);
});

test('files that are gone are named: of a container, of a volume, of an image; only an image that others have is no loss', async () => {
  await dc.container('c1', 'web', true, {volumeIds: ['v1']}, [dc.volume('v1', 'data')]);
  const inventory = dc.agent.inventory.bind(dc.agent);
  dc.agent.inventory = async () => ({...(await inventory()), snapshots: [], volumes: [], lacking: {volumes: [], images: [IMAGE_ID]}});
  expect(await drift()).toEqual([`container.files ${ACCOUNT}/web`, expect.stringMatching(/^image.missing [^;]*$/), `volume.missing ${ACCOUNT}/data`]);
  const {value} = await dc.store.get<Image>('images', `${ACCOUNT}/${IMAGE_ID}`);
  await dc.store.put('images', `${ACCOUNT}/${IMAGE_ID}`, {...value, nodes: [...value.nodes, 'node-2']});
  expect(await drift()).toContainEqual(expect.stringMatching(/^image.missing .*; it is taken from other nodes when it is needed$/));
  expect((await dc.store.get<Image>('images', `${ACCOUNT}/${IMAGE_ID}`)).value.nodes).toEqual(['node-2']);
  dc.agent.inventory = inventory;
  expect(await drift()).toEqual([]);
});
