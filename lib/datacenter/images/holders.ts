/** Which nodes can give an image now, and how one that has not got it gets it. */
import {CetusError} from '../../base/errors';
import type {Image} from '../../schema/objects';
import type {Context} from '../context';
import type {Caller} from '../verbs';

/** `unavailable` where none of those that have it can be reached. */
export async function reachableHolders(context: Pick<Context, 'fleet'>, image: Image, shown: string): Promise<string[]> {
  const nodes = await context.fleet.nodes();
  const holders = new Set(image.nodes);
  const alive = nodes.filter((node) => node.liveness === 'alive' && holders.has(node.id)).map((node) => node.id);
  if (alive.length > 0) return alive;
  const away = nodes.filter((node) => holders.has(node.id)).map((node) => `${node.name} is ${node.liveness}`);
  throw new CetusError('unavailable', `no node that has the image ${shown} can be reached${away.length ? `: ${away.join(', ')}` : ''}`);
}

/** A node that has all of them: one that does already, else the one that lacks the fewest, which gets those from the others first. */
export async function gatherOn(context: Context, caller: Caller, images: {image: Image; shown: string}[]): Promise<string[]> {
  const holders = await Promise.all(images.map(({image, shown}) => reachableHolders(context, image, shown)));
  const count = new Map<string, number>();
  for (const id of holders.flat()) count.set(id, (count.get(id) ?? 0) + 1);
  const ready = [...count].filter(([, n]) => n === images.length).map(([id]) => id);
  if (ready.length > 0) return ready;
  const [[best]] = [...count].sort(([a, n], [b, m]) => m - n || (a < b ? -1 : 1)) as [[string, number]];
  for (const [i, {image}] of images.entries()) if (!holders[i]!.includes(best)) await bring(context, caller, image, best);
  return [best];
}

/** The node has it afterwards. */
export async function bring(context: Context, caller: Caller, image: Pick<Image, 'account' | 'id'>, nodeId: string): Promise<void> {
  await context.run(caller, 'image.replicate', {account: image.account, imageId: image.id, nodeId}, {signal: caller.signal});
}
