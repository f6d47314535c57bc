/**
 * Keeps images where they must be, in the background: what exists only inside gets its second copy back when a node is lost, drained or removed; what
 * nodes have is compared with what the store says (`look`); and a node whose disk fills up lets go of copies that nobody uses there and of
 * which enough others stay. Every endpoint has one: they decide alike, and the chains' locks make one of them do it. On a fleet of one it
 * does nothing.
 */
import {repeat} from '../base/background';
import {systemClock, type Clock} from '../base/clock';
import {isCetusError} from '../base/errors';
import type {Log} from '../base/log';
import type {Fleet} from '../fleet/fleet';
import {ALL, and, eq} from '../moray/filter';
import type {Moray} from '../moray/moray';
import type {NodeImages} from '../schema/agent';
import {BUCKETS} from '../schema/buckets';
import type {ImageCollectParams, ImageReplicateParams} from '../schema/chains';
import type {Container} from '../schema/container';
import type {Job} from '../schema/job';
import type {Node} from '../schema/node';
import type {Image} from '../schema/objects';
import type {Workflow} from '../workflow/chain';
import {candidates, copiesLacking, givers, toCollect} from './image-copies';

export interface ImageKeeperOptions {
  moray: Moray;
  fleet: Fleet;
  workflow: Workflow;
  log: Log;
  clock?: Clock;
  /** How soon a change of a node is noticed. Default 2 s. */
  noticeMs?: number;
  /** All images are looked through so often also where no node changed. Default 5 min. */
  sweepMs?: number;
  /** Each node is asked what it has so often. Default 10 min. */
  lookMs?: number;
}

export interface ImageKeeper {
  start(): void;
  stop(): Promise<void>;
  /** One pass over all images; resolves when what it began is over. Answers how many copies were made. */
  sweep(): Promise<number>;
  /** One pass over all nodes. What is amiss counts when two passes running have seen it. */
  look(): Promise<void>;
}

const IMAGES = BUCKETS.images.name;
/** Copies under way at a time, and nodes that are asked at a time. */
const PARALLEL = 4;
const LOCK_WAIT_MS = 1_000;

export function createImageKeeper(options: ImageKeeperOptions): ImageKeeper {
  return new Keeper(options);
}

class Keeper implements ImageKeeper {
  private readonly clock: Clock;
  private readonly stopping = new AbortController();
  private loops: Promise<void>[] = [];
  /** What of nodes decides where copies must be, at the last pass. */
  private seen = '';
  private sweptMs = Number.NEGATIVE_INFINITY;
  private suspects = new Set<string>();

  constructor(private readonly options: ImageKeeperOptions) {
    this.clock = options.clock ?? systemClock;
  }

  start(): void {
    const {clock, stopping: {signal}, options: {log, noticeMs = 2_000, lookMs = 600_000}} = this;
    this.loops = [
      repeat({clock, signal, pauseMs: noticeMs, work: () => this.sweepWhereNews(), failed: (err) => log.warn({err}, 'a pass over the images failed; trying again later')}),
      repeat({clock, signal, pauseMs: lookMs, work: () => this.look(), failed: (err) => log.warn({err}, 'a look at what the nodes hold failed; trying again later')}),
    ];
  }

  async stop(): Promise<void> {
    this.stopping.abort(new Error('the keeper of images stops'));
    await Promise.all(this.loops);
  }

  async sweep(): Promise<number> {
    const {fleet, moray, log} = this.options;
    const nodes = await fleet.nodes();
    if (nodes.length < 2) return 0;
    let made = 0;
    const running = new Set<Promise<void>>();
    for await (const {value: image} of moray.find<Image>(IMAGES, ALL)) {
      if (this.stopping.signal.aborted) break;
      const lacking = image.removing ? 0 : copiesLacking(image, nodes);
      if (lacking === 0) continue;
      if (givers(image, nodes).length === 0) {
        if (image.copies !== undefined) log.warn({account: image.account, imageId: image.id, nodes: image.nodes}, 'no node that has this image can be reached');
        continue;
      }
      const platform = `${image.config.os}/${image.config.architecture}`;
      for (const {id} of candidates({...image, platform}, nodes).slice(0, lacking)) {
        const copying = this.replicate(image, id).then((done) => { made += done ? 1 : 0; }).finally(() => running.delete(copying));
        running.add(copying);
        if (running.size >= PARALLEL) await Promise.race(running);
      }
    }
    await Promise.all(running);
    return made;
  }

  async look(): Promise<void> {
    const nodes = await this.options.fleet.nodes();
    if (nodes.length < 2) return;
    const still = new Set<string>();
    const queue = nodes.filter((node) => node.liveness === 'alive').values();
    await Promise.all(Array.from({length: PARALLEL}, async () => {
      for (const node of queue) {
        if (this.stopping.signal.aborted) return;
        await this.lookAt(node, nodes, still).catch((err: unknown) => this.options.log.warn({err, nodeId: node.id}, 'a node did not tell what images it holds'));
      }
    }));
    this.suspects = still;
  }

  private async sweepWhereNews(): Promise<void> {
    const nodes = await this.options.fleet.nodes();
    if (nodes.length < 2) return;
    const now = nodes.map(({id, liveness, availability}) => `${id} ${liveness === 'suspect' ? 'alive' : liveness} ${availability}`).join('\n');
    if (now === this.seen && this.clock.now() - this.sweptMs < (this.options.sweepMs ?? 300_000)) return;
    const made = await this.sweep();
    [this.seen, this.sweptMs] = [now, this.clock.now()];
    if (made > 0) this.options.log.info({made}, 'copies of images made');
  }

  private async lookAt(node: Node, nodes: Node[], still: Set<string>): Promise<void> {
    const {fleet, moray, log} = this.options;
    // In this order: what the store says of later arrivals is then not missed in what the node said before.
    const held = await (await fleet.agent(node.id)).heldImages();
    const stored = (await moray.list<Image>(IMAGES, eq('nodes', node.id))).map((row) => row.value);
    const has = new Set(held.images.map(({account, imageId, manifestDigest}) => `${account}/${imageId}@${manifestDigest}`));
    for (const image of stored) {
      if (has.has(`${image.account}/${image.id}@${image.manifestDigest}`) || !this.again(still, `${node.id} lacks ${image.account}/${image.id}`)) continue;
      log.error({nodeId: node.id, account: image.account, imageId: image.id}, 'a node has lost an image that it should hold; it does not count any more');
      await this.forget(image, node.id);
    }
    await this.removeUnknown(node, held, new Set(stored.map((image) => `${image.account}/${image.id}`)), still);
    const containers = (await moray.list<Container>(BUCKETS.containers.name, eq('nodeId', node.id))).map((row) => row.value);
    const used = new Set(containers.map(({account, imageId}) => `${account}/${imageId}`));
    for (const image of toCollect(node.id, held.disk, stored, used, nodes)) await this.collect(image.account, image.id, node.id, 'the disk fills up');
  }

  /** What a killed process, a node that was away, or an undo that could not know left behind. */
  private async removeUnknown(node: Node, {images}: NodeImages, stored: ReadonlySet<string>, still: Set<string>): Promise<void> {
    const unknown = new Map(images.map(({account, imageId}) => [`${account}/${imageId}`, {account, imageId}]));
    for (const [key, {account, imageId}] of unknown) {
      if (stored.has(key)) continue;
      // Whoever brings images just now has brought them before the store hears of it.
      const underWay = await this.options.moray.list<Job>(BUCKETS.jobs.name, and(eq('account', account), eq('execution', 'running')));
      if (underWay.some(({value}) => /^image\.|^container\./.test(value.workflow))) continue;
      if (this.again(still, `${node.id} keeps ${key}`)) await this.collect(account, imageId, node.id, 'the store does not know of it');
    }
  }

  private again(still: Set<string>, suspicion: string): boolean {
    still.add(suspicion);
    return this.suspects.has(suspicion);
  }

  private async forget(image: Image, nodeId: string): Promise<void> {
    const key = `${image.account}/${image.id}`;
    const fresh = await this.options.moray.peek<Image>(IMAGES, key);
    if (!fresh) return;
    await this.options.moray.put(IMAGES, key, {...fresh.value, nodes: fresh.value.nodes.filter((id) => id !== nodeId)}, {etag: fresh.etag}).catch((err: unknown) => {
      if (!isCetusError(err, 'etagConflict')) throw err;
    });
    // The next pass over the images gives it another.
    this.seen = '';
  }

  private async replicate({account, id: imageId}: Image, nodeId: string): Promise<boolean> {
    const params: ImageReplicateParams = {account, imageId, nodeId};
    return this.run('image.replicate', account, params, `keep-${imageId.slice(7, 19)}`);
  }

  private async collect(account: string, imageId: string, nodeId: string, why: string): Promise<void> {
    const params: ImageCollectParams = {account, imageId, nodeId, why};
    if (await this.run('image.collect', account, params, `collect-${imageId.slice(7, 19)}`)) this.options.log.info({...params}, 'a node has let go of an image');
  }

  /** False where it was not done: in use, gone meanwhile, or somebody else is at it. All of it is looked at again. */
  private async run(workflow: string, account: string, params: object, requestId: string): Promise<boolean> {
    try {
      await this.options.workflow.run({workflow, account, params, requestId, lockWaitMs: LOCK_WAIT_MS, signal: this.stopping.signal});
      return true;
    } catch (err) {
      if (!isCetusError(err, 'conflict') && !isCetusError(err, 'notFound') && !this.stopping.signal.aborted) this.options.log.warn({err, workflow, ...params}, 'the keeper of images could not do what it wanted');
      return false;
    }
  }
}
