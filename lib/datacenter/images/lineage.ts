/** Which images were made from which: by their layers, so that no parent record is needed. */
import {eq} from '../../moray/filter';
import {BUCKETS} from '../../schema/buckets';
import type {Image} from '../../schema/objects';
import type {Context} from '../context';

/** The image itself, and every image of the account whose layers begin with all of its layers. */
export async function descendants(context: Pick<Context, 'moray'>, account: string, image: Image): Promise<string[]> {
  const base = image.layers.map((l) => l.diffId);
  const found = [image.id];
  for await (const {value} of context.moray.find<Image>(BUCKETS.images.name, eq('account', account))) {
    if (value.id !== image.id && base.length > 0 && base.length < value.layers.length && base.every((diffId, i) => value.layers[i]!.diffId === diffId)) found.push(value.id);
  }
  return found;
}
