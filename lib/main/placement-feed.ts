/**
 * Keeps placement's index true to the store: nodes, reservations, containers and image locality, from the change feed. The index may lag
 * by a few milliseconds; that costs a replan (reservations are etag-guarded writes), never an overcommitted node.
 */
import type {Log} from '../base/log';
import {type JobServices, nodeView} from '../jobs/services';
import type {Change, Moray} from '../moray/moray';
import type {PlacementIndex} from '../placement/placement';
import {BUCKETS} from '../schema/buckets';
import type {Container} from '../schema/container';
import type {Node, NodeReservations} from '../schema/node';
import type {Image, ImageRef} from '../schema/objects';

const EVERYTHING = '(_key=*)';

type Source = {bucket: string; put(key: string, value: never): void; drop(key: string, value: never): void};

export async function feedPlacement(moray: Moray, index: PlacementIndex, config: JobServices['config'], log: Log, signal: AbortSignal): Promise<void> {
  const nodes = new Map<string, Node>();
  const reservations = new Map<string, NodeReservations>();
  const images = new Map<string, Image>();
  const references = new Map<string, Set<string>>();

  const showNode = (id: string): void => {
    const node = nodes.get(id);
    if (node) index.putNode(nodeView(node, reservations.get(id), config));
    else index.removeNode(id);
  };
  const imageKey = (account: string, imageId: string): string => `${account}/${imageId}`;
  const showImage = (image: Image): void => {
    const names = [...references.get(imageKey(image.account, image.id)) ?? []];
    for (const node of image.nodes) index.putImage(node, image.id, names);
  };

  const sources: Source[] = [
    {
      bucket: BUCKETS.nodes.name,
      put: (key, node: Node) => { nodes.set(key, node); showNode(key); },
      drop: (key) => { nodes.delete(key); showNode(key); },
    },
    {
      bucket: BUCKETS.reservations.name,
      put: (key, value: NodeReservations) => { reservations.set(key, value); if (nodes.has(key)) showNode(key); },
      drop: (key) => { reservations.delete(key); if (nodes.has(key)) showNode(key); },
    },
    {
      bucket: BUCKETS.containers.name,
      put: (_key, {id, name, account, nodeId, labels, imageId, imageReference, publishedPorts}: Container) =>
        index.putContainer({id, name, account, nodeId, labels, imageId, imageReference, ports: publishedPorts}),
      drop: (key) => index.removeContainer(key),
    },
    {
      bucket: BUCKETS.images.name,
      put: (key, image: Image) => {
        for (const gone of images.get(key)?.nodes.filter((n) => !image.nodes.includes(n)) ?? []) index.removeImage(gone, image.id);
        images.set(key, image);
        showImage(image);
      },
      drop: (key, image: Image) => {
        images.delete(key);
        // Another account may hold the same image on the same nodes.
        const held = new Set([...images.values()].filter((i) => i.id === image.id).flatMap((i) => i.nodes));
        for (const node of image.nodes) if (!held.has(node)) index.removeImage(node, image.id);
      },
    },
    {
      bucket: BUCKETS.image_refs.name,
      put: (_key, ref: ImageRef) => {
        const key = imageKey(ref.account, ref.imageId);
        references.set(key, (references.get(key) ?? new Set()).add(ref.reference));
        const image = images.get(key);
        if (image) showImage(image);
      },
      drop: (_key, ref: ImageRef) => { references.get(imageKey(ref.account, ref.imageId))?.delete(ref.reference); },
    },
  ] as Source[];

  // Watch first, then read: a change between the two is seen twice, never missed.
  const feeds = await Promise.all(sources.map((source) => moray.watch<never>(source.bucket, EVERYTHING, {since: 'now', signal})));
  for (const source of sources) for await (const found of moray.find<never>(source.bucket, EVERYTHING)) source.put(found.key, found.value);
  feeds.forEach((feed, at) => void follow(feed, sources[at], log, signal));
}

async function follow(feed: AsyncIterable<Change<never>>, source: Source, log: Log, signal: AbortSignal): Promise<void> {
  try {
    for await (const change of feed)
      if (change.kind === 'put') source.put(change.key, change.value);
      else source.drop(change.key, change.value);
  } catch (err) {
    if (signal.aborted) return;
    // Without its feed a process would place by an ever older picture; ending it makes its supervisor start a fresh one.
    log.fatal({err, bucket: source.bucket}, 'the change feed of placement ended');
    process.exitCode = 70;
    process.kill(process.pid, 'SIGTERM');
  }
}
