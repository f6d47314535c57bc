/**
 * The verbs on builds. A stock engine on a node does the building; here is chosen which, it is told what the account has, and what it made
 * becomes an image of the account before the client hears that it is done. Which instructions there are, what they mean and what is cached
 * is the engine's alone.
 */
import type {Duplex, Readable} from 'node:stream';
import {readBytes} from '../../base/body';
import {CetusError, isCetusError} from '../../base/errors';
import type {AgentBuilds} from '../../fleet/fleet';
import {eq} from '../../moray/filter';
import {type BuiltNames, nodeNetwork} from '../../schema/agent';
import {BUCKETS} from '../../schema/buckets';
import type {Node} from '../../schema/node';
import type {Image, ImageRef} from '../../schema/objects';
import {familiarReference, parseImageName} from '../../schema/reference';
import type {Context} from '../context';
import {pruned} from '../events';
import {bring} from '../images/holders';
import {imageKey, refKey} from '../images/resolve';
import type {PredefinedNetworks} from '../networks-predefined';
import type {BuildHeaders, BuildVerbs, Caller, OpenBuild} from '../verbs';
import {checkBuild} from './options';
import {progressLines, ResultHeldBack} from './progress';

const IMAGES = BUCKETS.images.name;
const REFS = BUCKETS.image_refs.name;
const BROUGHT_AT_A_TIME = 4;

export function buildVerbs(context: Context, predefined: PredefinedNetworks): BuildVerbs {
  /** Holds on their way back: nobody's answer waits for that, but the next build, which must not take the last one for one that still goes on. */
  const goingBack = new Set<Promise<void>>();
  const giveBack = (held: OpenBuild): void => {
    const going = held.close().finally(() => goingBack.delete(going));
    goingBack.add(going);
  };

  const builder = async (): Promise<{nodeId: string; agent: AgentBuilds}> => {
    // The same one each time, where it is alive: its caches are warm. One that is to have nothing new builds where no other does.
    const away = (n: Node): number => (n.availability === 'active' ? 0 : 1);
    const [node] = (await context.fleet.nodes()).filter((n) => n.liveness === 'alive' && n.facts.builds).sort((a, b) => away(a) - away(b) || (a.id < b.id ? -1 : 1));
    if (!node) throw new CetusError('unavailable', 'docker build needs a node with dockerd (Debian\'s package docker.io, 20.10 or later) and tini; no node that is alive has them');
    return {nodeId: node.id, agent: (await context.fleet.agent(node.id)).builds};
  };

  const open = async (caller: Caller): Promise<OpenBuild> => {
    const {account} = caller;
    await Promise.all(goingBack);
    const [{nodeId, agent}, images, references, network] = await Promise.all([
      builder(), context.moray.list<Image>(IMAGES, eq('account', account)), context.moray.list<ImageRef>(REFS, eq('account', account)), predefined.builds(caller),
    ]);
    const names = new Map<string, string[]>();
    for (const {value} of references) names.set(value.imageId, [...(names.get(value.imageId) ?? []), value.reference]);
    const usable = images.filter(({value}) => !value.removing);
    const brought = await bringNamed(context, caller, nodeId, usable.map(({value}) => value).filter((image) => !image.nodes.includes(nodeId) && names.has(image.id)));
    const hold = await agent.prepare({
      account, network: nodeNetwork(network), hostNetwork: context.config.allowHostNetwork,
      images: usable.filter(({value}) => value.nodes.includes(nodeId) || brought.has(value.id))
        .map(({value}) => ({imageId: value.id, manifest: value.manifest, references: names.get(value.id) ?? []})),
    });
    return new HeldBuild(context, caller, nodeId, agent, hold);
  };

  return {
    open,

    async *build(caller, query, body, headers) {
      checkBuild(context.config, query);
      const held = await open(caller);
      try {
        const output = await held.call('POST', `/build?${query.toString()}`, body, headers);
        const result = new ResultHeldBack();
        for await (const line of progressLines(output)) yield* result.pass(line);
        await held.settle(result.imageIds);
        yield* result.rest();
      } finally {
        // Also where the client hung up: what a FROM pulled until then is there, as at the Engine.
        giveBack(held);
      }
    },

    async cancel(caller, id) {
      const held = await open(caller);
      try {
        (await held.call('POST', `/build/cancel?id=${encodeURIComponent(id)}`, undefined, {})).resume();
      } finally {
        await held.close();
      }
    },

    async prune(caller, query) {
      const {BuildCache} = await this.usage(caller);
      const told = (bytes: number): void => context.events.emit(caller.account, pruned('builder', bytes));
      if (BuildCache.length === 0) {
        told(0);
        return {CachesDeleted: null, SpaceReclaimed: 0};
      }
      const held = await open(caller);
      try {
        const answer = await readJson<{CachesDeleted: string[] | null; SpaceReclaimed: number}>(await held.call('POST', `/build/prune?${query.toString()}`, undefined, {}));
        told(answer.SpaceReclaimed);
        return answer;
      } finally {
        await held.close();
      }
    },

    async usage(caller) {
      try {
        return await (await builder()).agent.usage(caller.account);
      } catch (err) {
        // A datacenter without a builder, or with one that is away, has no cache that anybody could use.
        if (isCetusError(err, 'unavailable')) return {BuildCache: [], BuilderSize: 0};
        throw err;
      }
    },

    async available() {
      return (await context.fleet.nodes()).some((n) => n.liveness === 'alive' && n.facts.builds);
    },
  };
}

/**
 * Whatever a FROM could name is on the builder before the build begins: what it names is known to the engine alone, and it asks nobody but registries.
 * One that cannot be got now is missed by the builds that name it, not by all.
 */
async function bringNamed(context: Context, caller: Caller, nodeId: string, images: Image[]): Promise<Set<string>> {
  const brought = new Set<string>();
  const queue = images.values();
  await Promise.all(Array.from({length: Math.min(BROUGHT_AT_A_TIME, images.length)}, async () => {
    for (const image of queue) {
      try {
        await bring(context, caller, image, nodeId);
        brought.add(image.id);
      } catch (err) {
        caller.signal?.throwIfAborted();
        context.log.warn({err, nodeId, imageId: image.id}, 'an image could not be brought to the node that builds');
      }
    }
  }));
  return brought;
}

class HeldBuild implements OpenBuild {
  private closed = false;

  constructor(private readonly context: Context, private readonly caller: Caller, private readonly nodeId: string, private readonly agent: AgentBuilds, private readonly hold: string) {}

  call(method: string, path: string, body: Readable | undefined, headers: BuildHeaders): Promise<Readable> {
    return this.agent.call(this.hold, method, path, body, headers as Record<string, string>, this.caller.signal);
  }

  stream(path: string, headers: BuildHeaders): Promise<Duplex> {
    return this.agent.open(this.hold, path, headers);
  }

  async settle(imageIds: string[]): Promise<void> {
    const built = await this.agent.built(this.hold, imageIds);
    const images: BuiltNames[] = [];
    for (const image of built) if (await this.isNews(image)) images.push(image);
    if (images.length === 0) return;
    // Finished also where the client hangs up now: the work is done, and the engine has the names already.
    const {account, requestId} = this.caller;
    await this.context.run({account, requestId}, 'image.take', {account, takeId: this.context.ids.uuid(), nodeId: this.nodeId, hold: this.hold, images});
  }

  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    // The hold ends by itself where the node does not hear of it.
    await this.agent.release(this.hold).catch(() => undefined);
  }

  /** False where the account has this very image by all of these names: the build came out of the cache. The Engine tags again, and says so. */
  private async isNews({imageId, references, repoDigests}: BuiltNames): Promise<boolean> {
    const {account} = this.caller;
    const {moray, events} = this.context;
    const [image, ...refs] = await Promise.all([moray.peek<Image>(IMAGES, imageKey(account, imageId)), ...references.map((reference) => moray.peek<ImageRef>(REFS, refKey(account, reference)))]);
    if (!image || image.value.removing || !image.value.nodes.includes(this.nodeId) || refs.some((ref) => (ref?.value as ImageRef | undefined)?.imageId !== imageId)) return true;
    if (repoDigests.length === 0) for (const reference of references) events.emit(account, {type: 'image', action: 'tag', actorId: imageId, attributes: {name: familiarReference(parseImageName(reference))}});
    return false;
  }
}

const MAX_ANSWER_BYTES = 32 * 1024 * 1024;

async function readJson<T>(body: Readable): Promise<T> {
  const bytes = await readBytes(body, MAX_ANSWER_BYTES, () => new CetusError('internal', 'a build engine\'s answer is too long'));
  try {
    return JSON.parse(bytes.toString('utf8')) as T;
  } catch (cause) {
    throw new CetusError('internal', 'a build engine\'s answer is not JSON', {cause});
  }
}

