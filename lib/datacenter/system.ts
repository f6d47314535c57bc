/** What `docker info`, `docker system df` and readiness probes ask. */
import {CetusError} from '../base/errors';
import {eq} from '../moray/filter';
import {BUCKETS} from '../schema/buckets';
import type {Image, Volume} from '../schema/objects';
import type {Context} from './context';
import {unlessAway, volumeSize} from './sizes';
import type {ContainerVerbs, ImageVerbs, SystemVerbs} from './verbs';

const SIZES_PARALLEL = 8;
const PING_DEADLINE_MS = 3_000;

export function systemVerbs(context: Context, containers: ContainerVerbs, images: ImageVerbs): SystemVerbs {
  return {
    async info(caller) {
      const [nodes, list, count] = await Promise.all([
        context.fleet.nodes(), context.views.list(caller.account), context.moray.count(BUCKETS.images.name, eq('account', caller.account)),
      ]);
      const by = (...statuses: string[]): number => list.filter((c) => statuses.includes(c.status)).length;
      const alive = nodes.filter((n) => n.liveness === 'alive');
      return {
        id: context.config.id, name: context.config.name, nodes,
        containers: {running: by('running', 'restarting'), paused: by('paused'), stopped: by('created', 'exited', 'dead', 'removing'), total: list.length},
        images: count, totalMemoryBytes: alive.reduce((n, node) => n + node.facts.memoryBytes, 0), totalCpus: alive.reduce((n, node) => n + node.facts.cpus, 0),
        postgresVersion: context.config.postgresVersion ?? '',
      };
    },

    async diskUsage(caller) {
      const [list, all, volumes] = await Promise.all([
        images.list(caller, {all: true, filters: {}, sharedSize: true}), context.views.list(caller.account), context.moray.list<Volume>(BUCKETS.volumes.name, eq('account', caller.account)),
      ]);
      const sizes: {container: (typeof all)[number]; sizeRw: number}[] = [];
      await inParallel(all, async (container) => {
        sizes.push({container, sizeRw: await unlessAway(async () => (await containers.size(caller, container)).sizeRw, 0)});
      });
      const uses = new Map<string, number>();
      for (const c of all) for (const id of c.volumeIds) uses.set(id, (uses.get(id) ?? 0) + 1);
      const counted: {volume: Volume; size: number; refCount: number}[] = [];
      // What options mount is not this datacenter's room, and the Engine leaves it out.
      await inParallel(volumes.map((v) => v.value).filter((v) => !Object.keys(v.options).length), async (volume) => {
        counted.push({volume, size: await volumeSize(context, volume), refCount: uses.get(volume.id) ?? 0});
      });
      counted.sort((a, b) => (a.volume.name < b.volume.name ? -1 : 1));
      return {images: list, containers: sizes, volumes: counted, layersSize: layersSize(list.map((i) => i.image))};
    },

    async ping() {
      await context.moray.peek(BUCKETS.accounts.name, 'default', {deadlineMs: PING_DEADLINE_MS});
      if (!(await context.fleet.nodes()).some((n) => n.liveness === 'alive')) throw new CetusError('unavailable', 'no node of this datacenter is alive');
    },
  };
}

async function inParallel<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const queue = items.values();
  await Promise.all(Array.from({length: SIZES_PARALLEL}, async () => {
    for (const item of queue) await work(item);
  }));
}

/** Layers that images share count once. */
function layersSize(images: Image[]): number {
  const layers = new Map<string, number>();
  for (const image of images) for (const layer of image.layers) layers.set(layer.diffId, layer.unpackedSize);
  return [...layers.values()].reduce((a, b) => a + b, 0);
}
