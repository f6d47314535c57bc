/**
 * Counts nodes among those that have an image, for the chains of this process: one write at a time for each image, with all nodes that came while the one before was under way.
 *
 * Each first container of a node wants the same row. Written by each chain in its own batch they met there: every write was a conflict for all others that had read the row, who
 * planned again, and whoever was just being placed (the row is checked there too) did as well.
 *
 * Resolves when the store has it, or where there is nothing to write (the image is gone, or has as many holders as are counted). What fails may be said again.
 */
import {asCetusError, CetusError, isCetusError} from '../base/errors';
import type {Moray} from '../moray/moray';
import {BUCKETS} from '../schema/buckets';
import type {Image} from '../schema/objects';

/**
 * An image that everybody uses comes to be on every node, and its object is read by each create: of so many holders more would only make it larger (and the store's index takes no more
 * than 1,000). A node beyond them has the image, but does not count: it is asked for it at each container, and where nobody uses it there the keeper takes it away.
 */
export const MOST_HOLDERS = 512;

const IMAGES = BUCKETS.images.name;
const TRIES = 20;

interface Waiting { nodeIds: readonly string[]; done(err?: CetusError): void }

export class ImageHolders {
  /** Absent where nothing of the image is being written. */
  private readonly lines = new Map<string, Waiting[]>();

  /** `key`: ACCOUNT/ID. */
  count(moray: Moray, key: string, nodeIds: readonly string[]): Promise<void> {
    if (!nodeIds.length) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const waiting: Waiting = {nodeIds, done: (err) => (err ? reject(err) : resolve())};
      const line = this.lines.get(key);
      if (line) return void line.push(waiting);
      const begun = [waiting];
      this.lines.set(key, begun);
      void this.drain(moray, key, begun);
    });
  }

  private async drain(moray: Moray, key: string, line: Waiting[]): Promise<void> {
    while (line.length) {
      const now = line.splice(0);
      const failed = await write(moray, key, now.flatMap(({nodeIds}) => nodeIds)).then(() => undefined, (err: unknown) => asCetusError(err, 'count the nodes that have an image'));
      for (const {done} of now) done(failed);
    }
    this.lines.delete(key);
  }
}

async function write(moray: Moray, key: string, nodeIds: readonly string[]): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    const image = await moray.peek<Image>(IMAGES, key, {fresh: true});
    if (!image || image.value.nodes.length >= MOST_HOLDERS) return;
    const nodes = [...new Set([...image.value.nodes, ...nodeIds])];
    if (nodes.length === image.value.nodes.length) return;
    try {
      await moray.put<Image>(IMAGES, key, {...image.value, nodes}, {etag: image.etag});
      return;
    } catch (err) {
      if (!isCetusError(err, 'etagConflict')) throw err;
      if (attempt >= TRIES) throw new CetusError('unavailable', `too many others change image ${key}`, {cause: err});
    }
  }
}
