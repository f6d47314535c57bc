/** Images over several nodes: where copies are, when they are made, who is asked for what, and what may go. Fake agents that give each other images. */
import {Readable} from 'node:stream';
import fc from 'fast-check';
import {silentLog} from '../../lib/base/log';
import {CetusError} from '../../lib/base/errors';
import {FakeAgent} from '../../lib/fleet/fake-agent';
import type {Fleet} from '../../lib/fleet/fleet';
import {CHAINS} from '../../lib/jobs/chains/index';
import {candidates, copiesLacking, lastingHolders, mayLeave, peersOf, rendezvous, toCollect, type NodeState} from '../../lib/jobs/image-copies';
import {createImageKeeper, type ImageKeeper} from '../../lib/jobs/image-keeper';
import {createJobServices, DEFAULT_JOB_CONFIG, nodeView} from '../../lib/jobs/services';
import {createMemoryMoray} from '../../lib/moray/memory';
import type {Moray} from '../../lib/moray/moray';
import {createPlacementIndex} from '../../lib/placement/index';
import type {EnsureRequest, LoadLine} from '../../lib/schema/agent';
import {BUCKETS} from '../../lib/schema/buckets';
import type {ChainName, ChainParams, ChainResult} from '../../lib/schema/chains';
import type {Node} from '../../lib/schema/node';
import type {Image} from '../../lib/schema/objects';
import {createWorkflow, type RunningWorkflow} from '../../lib/workflow/workflow';
import {ACCOUNT, Datacenter, nodeImage} from './world';

const REFERENCE = 'docker.io/library/pulled:latest';
const LOADED = nodeImage('3');

class World {
  readonly agents = new Map<string, FakeAgent>();
  readonly nodes = new Map<string, Node>();
  readonly store: Moray = createMemoryMoray({});
  readonly placement = createPlacementIndex();
  readonly shapes = new Datacenter();
  workflow!: RunningWorkflow;
  keeper!: ImageKeeper;
  progress: {status?: string}[] = [];

  async open(count: number): Promise<this> {
    await this.store.open(...Object.values(BUCKETS));
    for (let n = 1; n <= count; n += 1) {
      const id = `n${n}`;
      const agent = new FakeAgent({facts: {nodeId: id, name: id, agentUrl: `https://${id}`}});
      agent.peers = () => [...this.agents.values()];
      agent.registry.set(REFERENCE, nodeImage('2'));
      agent.load = async function* load(archive: Readable): AsyncGenerator<LoadLine> {
        archive.resume();
        agent.images.set(LOADED.imageId, LOADED);
        yield {result: {images: [{...LOADED, references: ['docker.io/library/loaded:latest']}]}};
      };
      this.agents.set(id, agent);
      this.set(id, {});
    }
    const fleet = this.fleet();
    this.workflow = createWorkflow({moray: this.store, chains: CHAINS, runnerId: 'r', log: silentLog(), services: createJobServices({fleet, placement: this.placement})});
    this.keeper = createImageKeeper({moray: this.store, fleet, workflow: this.workflow, log: silentLog()});
    return this;
  }

  set(id: string, more: Partial<Node>): void {
    const agent = this.agents.get(id)!;
    const node: Node = {
      ...{id, name: id, facts: agent.facts, availability: 'active', liveness: 'alive', livenessReason: '', livenessAt: '', labels: {}, joinedAt: ''}, ...this.nodes.get(id), ...more,
    };
    this.nodes.set(id, node);
    this.placement.putNode(nodeView(node, undefined, DEFAULT_JOB_CONFIG));
    agent.reachable = node.liveness === 'alive';
  }

  private fleet(): Fleet {
    return {
      node: async (id) => this.nodes.get(id)!,
      nodes: async () => [...this.nodes.values()],
      agent: async (id) => {
        if (!this.agents.get(id)) throw new CetusError('notFound', `node ${id} not found`);
        if (this.nodes.get(id)?.liveness !== 'alive') throw new CetusError('unavailable', `node ${id} is away`);
        return this.agents.get(id)!;
      },
    };
  }

  run<N extends ChainName>(workflow: N, params: ChainParams<N>, secrets?: unknown): Promise<ChainResult<N>> {
    return this.workflow.run({workflow, account: ACCOUNT, params, requestId: 'r', secrets, onProgress: (line) => this.progress.push(line as {status?: string})});
  }
  load(): Promise<unknown> {
    return this.run('image.load', {account: ACCOUNT, loadId: '11111111-1111-4111-8111-111111111111'}, {archive: Readable.from(['tar'])});
  }
  async image(id: string): Promise<Image | undefined> { return (await this.store.peek<Image>('images', `${ACCOUNT}/${id}`))?.value; }
  holding(id: string): string[] { return [...this.agents].filter(([, agent]) => agent.images.has(id)).map(([name]) => name); }
  asked(): (EnsureRequest & {node: string})[] { return [...this.agents].flatMap(([node, agent]) => agent.ensured.map((request) => ({...request, node}))); }
  async put(image: Image): Promise<void> {
    await this.store.put('images', `${image.account}/${image.id}`, image);
    for (const node of image.nodes) this.agents.get(node)?.images.set(image.id, nodeImage(image.id.at(-1)!));
  }
  provision(node: string, digit: string, name: string): Promise<unknown> {
    const {imageId} = nodeImage(digit);
    const draft = this.shapes.draft(name, name, {imageId, networks: {}});
    const params = this.shapes.provision(draft);
    return this.run('container.provision', {...params, placement: {...params.placement, expressions: [`constraint:node==${node}`]}});
  }
}

let world: World;
const open = async (count: number): Promise<void> => { world = await new World().open(count); };

describe('what exists only inside', () => {
  test('is on two nodes when the load answers, and says on the way where it is copied to', async () => {
    await open(4);
    await world.load();
    const image = (await world.image(LOADED.imageId))!;
    expect(image).toMatchObject({copies: 2});
    expect(image.nodes).toHaveLength(2);
    expect(world.holding(LOADED.imageId).sort()).toEqual([...image.nodes].sort());
    const [asked] = world.asked();
    expect(asked).toMatchObject({node: image.nodes[1], imageId: LOADED.imageId, manifest: LOADED.manifest, peers: [{nodeId: image.nodes[0], url: `https://${image.nodes[0]}`}]});
    expect(asked).not.toHaveProperty('reference');
    expect(world.progress.map((line) => line.status)).toContain(`Copying to ${image.nodes[1]}`);
  });

  test('on a fleet of one nothing is different', async () => {
    await open(1);
    await world.load();
    expect((await world.image(LOADED.imageId))!.nodes).toEqual(['n1']);
    expect(world.asked()).toEqual([]);
    expect(await world.keeper.sweep()).toBe(0);
  });

  test('where only one node can have it, one is enough', async () => {
    await open(3);
    world.set('n2', {liveness: 'lost'});
    world.set('n3', {availability: 'cordoned'});
    await world.load();
    expect((await world.image(LOADED.imageId))!.nodes).toEqual(['n1']);
  });

  test('the next node is asked where one does not take it; where none does, nothing was loaded', async () => {
    await open(4);
    const refuse = (id: string): void => { world.agents.get(id)!.ensure = async function* ensure() { throw new CetusError('noSpace', 'no space left'); }; };
    const order = candidates({id: LOADED.imageId, nodes: []}, [...world.nodes.values()]).map((n) => n.id);
    for (const id of order.slice(0, 2)) refuse(id);
    await world.load();
    expect((await world.image(LOADED.imageId))!.nodes).toHaveLength(2);
    await open(3);
    for (const id of world.agents.keys()) refuse(id);
    await expect(world.load()).rejects.toMatchObject({kind: 'unavailable', message: expect.stringContaining('could not be copied')});
    expect(await world.image(LOADED.imageId)).toBeUndefined();
    expect(world.holding(LOADED.imageId)).toEqual([]);
  });

  test('what is committed is on two nodes as well', async () => {
    await open(3);
    await world.put(world.shapes.image('1', ['n2']));
    await world.provision('n2', '1', 'c1');
    const {imageId} = await world.run('image.commit', {account: ACCOUNT, containerId: 'c1', reference: '', author: '', comment: '', pause: false, config: {}, containerConfig: {}});
    const image = (await world.image(imageId))!;
    expect(image.nodes[0]).toBe('n2');
    expect(image.nodes).toHaveLength(2);
    expect(world.holding(imageId).sort()).toEqual([...image.nodes].sort());
  });
});

describe('after a loss', () => {
  const both = async (): Promise<{here: string; there: string}> => {
    await open(4);
    await world.load();
    const [here, there] = (await world.image(LOADED.imageId))!.nodes as [string, string];
    return {here, there};
  };

  test.each([['lost', {liveness: 'lost'}], ['fenced', {liveness: 'fenced'}], ['being drained', {availability: 'draining'}]] as const)('of a node that is %s there is a second copy again', async (_what, state) => {
    const {here, there} = await both();
    world.set(here, state);
    expect(await world.keeper.sweep()).toBe(1);
    const {nodes} = (await world.image(LOADED.imageId))!;
    expect(nodes).toHaveLength(3);
    expect(lastingHolders((await world.image(LOADED.imageId))!, [...world.nodes.values()])).toHaveLength(2);
    expect(nodes).toContain(there);
    expect(await world.keeper.sweep()).toBe(0);
  });

  test('of a node that is no node any more, too; one that is only suspect is waited for', async () => {
    const {here} = await both();
    world.set(here, {liveness: 'suspect'});
    expect(await world.keeper.sweep()).toBe(0);
    world.nodes.delete(here);
    expect(await world.keeper.sweep()).toBe(1);
  });

  test('what a registry has needs one copy, and gets another only where its only node is drained', async () => {
    await open(3);
    await world.run('image.pull', {account: ACCOUNT, reference: REFERENCE});
    const {imageId} = nodeImage('2');
    const [node] = (await world.image(imageId))!.nodes;
    expect(await world.image(imageId)).not.toHaveProperty('copies');
    expect(await world.keeper.sweep()).toBe(0);
    world.set(node!, {availability: 'draining'});
    expect(await world.keeper.sweep()).toBe(1);
  });

  test('the only node that has it dies while it gives it: the copy is made when it is back', async () => {
    await open(2);
    world.set('n2', {availability: 'cordoned'});
    await world.load();
    world.set('n2', {availability: 'active'});
    const taker = world.agents.get('n2')!;
    const real = taker.ensure.bind(taker);
    taker.ensure = async function* ensure(request: EnsureRequest) {
      world.set('n1', {liveness: 'lost'});
      yield* real(request);
    };
    expect(await world.keeper.sweep()).toBe(0);
    expect((await world.image(LOADED.imageId))!.nodes).toEqual(['n1']);
    expect(world.holding(LOADED.imageId)).toEqual(['n1']);
    taker.ensure = real;
    world.set('n1', {liveness: 'alive'});
    expect(await world.keeper.sweep()).toBe(1);
    expect((await world.image(LOADED.imageId))!.nodes).toEqual(['n1', 'n2']);
  });
});

describe('a container on a node without its image', () => {
  test('gets it from those that have it, and the registry hears nothing', async () => {
    await open(4);
    await world.run('image.pull', {account: ACCOUNT, reference: REFERENCE});
    await Promise.all(['n1', 'n2', 'n3', 'n4'].map((node) => world.provision(node, '2', `c-${node}`)));
    const {imageId} = nodeImage('2');
    expect((await world.image(imageId))!.nodes.sort()).toEqual(['n1', 'n2', 'n3', 'n4']);
    expect(world.asked()).toHaveLength(3);
    for (const {peers, reference} of world.asked()) {
      expect(peers.length).toBeGreaterThan(0);
      expect(reference).toMatch(/pulled@sha256:/);
    }
  });

  test('where nobody has it any more, one node fetches it for all that want it', async () => {
    await open(4);
    const {imageId} = nodeImage('2');
    await world.put({...world.shapes.image('2', []), repoDigests: [`pulled@${nodeImage('2').manifest.digest}`]});
    for (const agent of world.agents.values()) agent.registry.set(`docker.io/library/pulled@${nodeImage('2').manifest.digest}`, nodeImage('2'));
    const leader = rendezvous(imageId, [...world.nodes.values()])[0]!.id;
    const others = [...world.nodes.keys()].filter((id) => id !== leader);
    await Promise.all(others.map((node) => world.provision(node, '2', `c-${node}`)));
    const fromRegistry = world.asked().filter(({peers}) => peers.length === 0);
    expect(new Set(fromRegistry.map(({node}) => node))).toEqual(new Set([leader]));
    expect(world.holding(imageId).sort()).toEqual(['n1', 'n2', 'n3', 'n4']);
    expect((await world.image(imageId))!.nodes.sort()).toEqual(['n1', 'n2', 'n3', 'n4']);
  });

  test('does not count where the image is on hundreds of others: it gets the image all the same, at each container', async () => {
    await open(3);
    const {imageId} = nodeImage('2');
    const holders = ['n1', ...Array.from({length: 1_000 - 1}, (_, n) => `far-${n}`)];
    await world.put(world.shapes.image('2', holders));
    for (const name of ['c1', 'c2']) await world.provision('n2', '2', name);
    expect(world.asked().map(({node, peers}) => [node, peers.map(({nodeId}) => nodeId)])).toEqual([['n2', ['n1']], ['n2', ['n1']]]);
    expect(world.holding(imageId)).toContain('n2');
    expect((await world.image(imageId))!.nodes).toEqual(holders);
  });

  test('where neither a registry nor a node that is heard has it, one that has just fallen silent is asked', async () => {
    await open(3);
    await world.put({...world.shapes.image('5', ['n1']), copies: 2});
    world.set('n1', {liveness: 'suspect'});
    await expect(world.provision('n2', '5', 'c')).rejects.toMatchObject({kind: 'conflict', message: expect.stringContaining('only on nodes that cannot be reached')});
    world.agents.get('n1')!.reachable = true;
    await world.provision('n2', '5', 'd');
    for (const {node, peers} of world.asked()) expect([node, peers.map(({nodeId}) => nodeId)]).toEqual(['n2', ['n1']]);
    expect(world.holding(nodeImage('5').imageId)).toEqual(['n1', 'n2']);
  });

  test('of an image that is only on nodes that are away it is told so', async () => {
    await open(3);
    await world.put({...world.shapes.image('5', ['n1']), copies: 2});
    world.set('n1', {liveness: 'lost'});
    await expect(world.provision('n2', '5', 'c')).rejects.toMatchObject({kind: 'conflict', message: expect.stringContaining('only on nodes that cannot be reached')});
  });
});

describe('pulls', () => {
  test('of the same name by several accounts go to the same node', async () => {
    await open(4);
    await Promise.all(['a', 'b', 'c'].map((account) => world.workflow.run({workflow: 'image.pull', account, params: {account, reference: REFERENCE}, requestId: 'r'})));
    expect(world.holding(nodeImage('2').imageId)).toHaveLength(1);
  });

  test('on another node ask those that have an image of that name first', async () => {
    await open(3);
    await world.run('image.pull', {account: ACCOUNT, reference: REFERENCE, node: 'n1'});
    const seen: unknown[] = [];
    const agent = world.agents.get('n2')!;
    const real = agent.pull.bind(agent);
    agent.pull = (request) => { seen.push(request); return real(request); };
    await world.run('image.pull', {account: ACCOUNT, reference: REFERENCE, node: 'n2'});
    expect(seen).toEqual([{account: ACCOUNT, reference: REFERENCE, platform: undefined, peers: [{nodeId: 'n1', url: 'https://n1'}]}]);
  });
});

describe('letting go', () => {
  const full = {totalBytes: 100_000, freeBytes: 1_000};
  const collect = (nodeId: string, digit = '3'): Promise<unknown> => world.run('image.collect', {account: ACCOUNT, imageId: nodeImage(digit).imageId, nodeId, why: 'test'});

  test('never of the last copy, of one of those that must be, or of one in use', async () => {
    await open(4);
    await world.put({...world.shapes.image('3', ['n1', 'n2']), copies: 2});
    await world.put(world.shapes.image('5', ['n1']));
    await world.put(world.shapes.image('6', ['n1', 'n2']));
    await expect(collect('n1', '3')).rejects.toMatchObject({kind: 'conflict'});
    await expect(collect('n1', '5')).rejects.toMatchObject({kind: 'conflict'});
    await world.provision('n1', '6', 'user');
    await expect(collect('n1', '6')).rejects.toMatchObject({kind: 'conflict'});
    expect(await collect('n2', '6')).toEqual({gone: true});
    expect(await world.image(nodeImage('6').imageId)).toMatchObject({nodes: ['n1']});
    expect(await world.image(nodeImage('6').imageId)).not.toHaveProperty('leaving');
    expect(world.holding(nodeImage('6').imageId)).toEqual(['n1']);
    // The other one is away: what is left is the last.
    await world.put(world.shapes.image('7', ['n3', 'n4']));
    world.set('n4', {liveness: 'lost'});
    await expect(collect('n3', '7')).rejects.toMatchObject({kind: 'conflict'});
  });

  test('one who is placed there meanwhile waits, and has the image afterwards', async () => {
    await open(3);
    await world.put(world.shapes.image('6', ['n1', 'n2']));
    const agent = world.agents.get('n1')!;
    const real = agent.task.bind(agent);
    let placed: Promise<unknown> | undefined;
    agent.task = async (task) => {
      if (task.body.kind === 'image.remove') {
        placed ??= world.provision('n1', '6', 'late');
        // It is placed, and waits for us.
        for (let n = 0; n < 500 && !(await world.store.peek('containers', 'late')); n += 1) await new Promise((resolve) => setImmediate(resolve));
      }
      return real(task);
    };
    expect(await collect('n1', '6')).toEqual({gone: true});
    await placed;
    expect(world.holding(nodeImage('6').imageId)).toEqual(['n1', 'n2']);
    expect((await world.image(nodeImage('6').imageId))!.nodes.sort()).toEqual(['n1', 'n2']);
  });

  test('a full node lets go of what nobody needs there; a second look finds nothing more', async () => {
    await open(3);
    await world.put(world.shapes.image('5', ['n1']));
    await world.put(world.shapes.image('6', ['n1', 'n2']));
    await world.put(world.shapes.image('7', ['n1', 'n3']));
    await world.provision('n1', '7', 'user');
    world.agents.get('n1')!.disk = full;
    await world.keeper.look();
    expect([...world.agents.get('n1')!.images.keys()].sort()).toEqual([nodeImage('5').imageId, nodeImage('7').imageId]);
    expect((await world.image(nodeImage('6').imageId))!.nodes).toEqual(['n2']);
  });

  test('what a node keeps and nobody knows of goes after the second look; what it should have and has not does not count', async () => {
    await open(3);
    await world.put({...world.shapes.image('5', ['n1', 'n2']), copies: 2});
    world.agents.get('n3')!.images.set(nodeImage('8').imageId, nodeImage('8'));
    world.agents.get('n2')!.images.clear();
    await world.keeper.look();
    expect(world.holding(nodeImage('8').imageId)).toEqual(['n3']);
    expect((await world.image(nodeImage('5').imageId))!.nodes).toEqual(['n1', 'n2']);
    await world.keeper.look();
    expect(world.holding(nodeImage('8').imageId)).toEqual([]);
    expect((await world.image(nodeImage('5').imageId))!.nodes).toEqual(['n1']);
    expect(await world.keeper.sweep()).toBe(1);
    expect((await world.image(nodeImage('5').imageId))!.nodes).toHaveLength(2);
  });

  test('rmi takes it from all nodes; one that is away is tidied when it is back', async () => {
    await open(3);
    await world.put({...world.shapes.image('5', ['n1', 'n2', 'n3', 'gone']), copies: 2});
    world.set('n2', {liveness: 'lost'});
    await world.run('image.remove', {account: ACCOUNT, imageId: nodeImage('5').imageId, reference: '', shown: 'x', force: false, noPrune: false});
    expect(world.holding(nodeImage('5').imageId)).toEqual(['n2']);
    expect(await world.image(nodeImage('5').imageId)).toBeUndefined();
    world.set('n2', {liveness: 'alive'});
    for (let n = 0; n < 2; n += 1) await world.keeper.look();
    expect(world.holding(nodeImage('5').imageId)).toEqual([]);
  });
});

describe('decisions', () => {
  const nodeOf = fc.record({
    liveness: fc.constantFrom('alive', 'suspect', 'lost', 'fenced'), availability: fc.constantFrom('active', 'cordoned', 'draining'), holds: fc.boolean(),
  });
  const scene = fc.tuple(fc.array(nodeOf, {maxLength: 8}), fc.option(fc.constant(2), {nil: undefined})).map(([parts, copies]) => {
    const nodes = parts.map(({liveness, availability}, n): NodeState => ({id: `n${n}`, name: `n${n}`, liveness, availability, facts: {platform: 'linux/amd64', agentUrl: `https://n${n}`}}) as NodeState);
    return {nodes, image: {id: 'i', copies, nodes: parts.flatMap(({holds}, n) => (holds ? [`n${n}`] : []))}};
  });

  test('copies that are made are what was lacking, and no more are lacking then', () => {
    fc.assert(fc.property(scene, ({nodes, image}) => {
      const lacking = copiesLacking(image, nodes);
      const targets = candidates(image, nodes).slice(0, lacking);
      expect(targets).toHaveLength(lacking);
      for (const {id} of targets) expect(image.nodes).not.toContain(id);
      expect(copiesLacking({...image, nodes: [...image.nodes, ...targets.map((n) => n.id)]}, nodes)).toBe(0);
    }));
  });

  test('who may leave leaves enough behind, whatever goes one after the other', () => {
    fc.assert(fc.property(scene, ({nodes, image}) => {
      let left = image;
      for (const {id} of nodes) if (left.nodes.includes(id) && mayLeave(left, nodes, id)) left = {...left, nodes: left.nodes.filter((n) => n !== id)};
      const before = lastingHolders(image, nodes).length;
      expect(lastingHolders(left, nodes).length).toBeGreaterThanOrEqual(Math.min(before, image.copies ?? 1));
    }));
  });

  test('peers are alive, have it, and are not the taker', () => {
    fc.assert(fc.property(scene, ({nodes, image}) => {
      for (const {nodeId} of peersOf(image, nodes, 'n0')) {
        expect(nodeId).not.toBe('n0');
        expect(image.nodes).toContain(nodeId);
        expect(nodes.find((n) => n.id === nodeId)!.liveness).toBe('alive');
      }
    }));
  });

  test('a disk with room needs no tidying', () => {
    expect(toCollect('n1', {totalBytes: 100, freeBytes: 20}, [], new Set(), [])).toEqual([]);
    expect(toCollect('n1', {totalBytes: 0, freeBytes: 0}, [], new Set(), [])).toEqual([]);
  });
});
