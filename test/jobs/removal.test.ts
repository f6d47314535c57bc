/** A removal that the store answers and the node hears of behind the answer: what is free at once, who has to wait, and when there is nothing to tell. */
import {CetusError} from '../../lib/base/errors';
import type {ChainName, ChainParams} from '../../lib/schema/chains';
import type {Container} from '../../lib/schema/container';
import type {NodeReservations} from '../../lib/schema/node';
import type {Image} from '../../lib/schema/objects';
import type {RunningWorkflow} from '../../lib/workflow/workflow';
import {ACCOUNT, Datacenter, IMAGE_ID, REFERENCE} from './world';

const open = (): Promise<Datacenter> => new Datacenter().open();
const start = <N extends ChainName>(workflow: RunningWorkflow, name: N, params: ChainParams<N>): Promise<unknown> =>
  workflow.run({workflow: name, account: ACCOUNT, params, requestId: 'r'});
const container = async (dc: Datacenter, id: string): Promise<Container> => (await dc.store.get<Container>('containers', id)).value;

describe('a removal', () => {
  const quiet = {requestedPorts: [], volumeIds: ['v1']};
  /** The node gets to removals of containers only once it is let. */
  const slowNode = (dc: Datacenter): {orders: string[]; go(): void} => {
    const original = dc.agent.task.bind(dc.agent);
    let go!: () => void;
    const let_ = new Promise<void>((resolve) => { go = resolve; });
    const orders: string[] = [];
    dc.agent.task = async (task) => {
      if (task.body.kind === 'container.remove') await let_;
      orders.push(task.body.kind);
      return original(task);
    };
    return {orders, go};
  };
  const removal = {containerId: 'c1', force: false, removeVolumes: true};

  it('is answered by the store where the node holds nothing that anybody could miss: all of it is free at once', async () => {
    const dc = await open();
    await dc.container('c1', 'web', true, quiet, [dc.volume('v1', 'data')]);
    await dc.put('container.stop', {containerId: 'c1', timeoutSeconds: 0, signal: null});
    const node = slowNode(dc);
    const workflow = dc.runner();
    await dc.clock.until(start(workflow, 'container.destroy', removal));
    expect(await dc.store.peek('containers', 'c1')).toBeUndefined();
    expect([...(await dc.all<NodeReservations>('reservations')).values()]).toMatchObject([{containers: {}, total: {memoryBytes: 0}}]);
    expect((await dc.events()).filter((e) => e === 'container destroy')).toHaveLength(1);
    await dc.put('volume.remove', {volumeId: 'v1', force: false});
    await dc.container('c2', 'web', true, {requestedPorts: []});
    expect(await container(dc, 'c2')).toMatchObject({status: 'running', attachments: [{address: '172.17.0.2'}]});
    expect(node.orders).not.toContain('container.remove');
    node.go();
    await dc.clock.until(workflow.stop());
    expect(node.orders).toContain('container.remove');
    await dc.settle();
    expect(await dc.leaks()).toEqual([]);
  });

  it.each([
    ['has published ports, which a foreign program may want next', async (dc: Datacenter) => dc.container('c1', 'web', false)],
    ['has anonymous volumes to go with it', async (dc: Datacenter) => dc.container('c1', 'web', false, {...quiet, anonymousVolumeIds: ['v1']}, [dc.volume('v1', 'anon', true)])],
    ['may be started by its node', async (dc: Datacenter) => {
      const {spec} = dc.draft('c1', 'web', quiet);
      await dc.container('c1', 'web', false, {...quiet, spec: {...spec, hostConfig: {RestartPolicy: {Name: 'always', MaximumRetryCount: 0}}}}, [dc.volume('v1', 'data')]);
    }],
    ['is on a node that is not heard of', async (dc: Datacenter) => {
      await dc.container('c1', 'web', false, quiet, [dc.volume('v1', 'data')]);
      dc.node.liveness = 'suspect';
    }],
  ])('waits for the node where the container %s', async (_why, prepare) => {
    const dc = await open();
    await prepare(dc);
    const node = slowNode(dc);
    let answered = false;
    const removing = start(dc.runner(), 'container.destroy', removal).then(() => { answered = true; });
    await dc.clock.pass(5000);
    expect({answered, status: (await container(dc, 'c1')).status}).toEqual({answered: false, status: 'removing'});
    node.go();
    await dc.clock.until(removing);
    await dc.settle();
    expect(await dc.leaks()).toEqual([]);
  });

  it('of an image comes to the node behind the containers of it that are on their way out', async () => {
    const dc = await open();
    await dc.container('c1', 'web', false, quiet, [dc.volume('v1', 'data')]);
    const node = slowNode(dc);
    const workflow = dc.runner();
    await dc.clock.until(start(workflow, 'container.destroy', removal));
    const removing = start(dc.runner(), 'image.remove', {account: ACCOUNT, imageId: IMAGE_ID, reference: REFERENCE, shown: 'busybox', force: false, noPrune: false});
    await dc.clock.pass(1000);
    expect(node.orders).toEqual([]);
    node.go();
    await dc.clock.until(removing);
    expect(node.orders).toEqual(['container.remove', 'image.remove']);
    expect(await dc.leaks()).toEqual([]);
  });

  it.each([
    ['its name tells of that once, though its digest goes with it', REFERENCE, ['image untag', 'image delete']],
    ['its id tells of each name', '', ['image untag', 'image untag', 'image delete']],
  ])('of a pushed image by %s', async (_how, reference, events) => {
    const dc = await open();
    const key = `${ACCOUNT}/${IMAGE_ID}`;
    const stored = await dc.store.get<Image>('images', key);
    await dc.store.put('images', key, {...stored.value, repoDigests: [`busybox@sha256:${'9'.repeat(64)}`]}, {etag: stored.etag});
    const answer = await dc.put('image.remove', {account: ACCOUNT, imageId: IMAGE_ID, reference, shown: 'busybox', force: true, noPrune: false});
    expect(answer).toHaveLength(3);
    expect((await dc.events()).filter((e) => e === 'image untag' || e === 'image delete').sort()).toEqual([...events].sort());
  });

  it('ends where the node itself is no more', async () => {
    const dc = await open();
    await dc.container('c1', 'web', false, {...quiet, volumeIds: []});
    dc.agent.task = async () => { throw new CetusError('notFound', 'No such node: alpha'); };
    const workflow = dc.runner();
    await dc.clock.until(start(workflow, 'container.destroy', removal));
    await dc.clock.until(workflow.stop());
    expect((await dc.jobs()).filter((j) => j.execution === 'running')).toEqual([]);
  });
});
