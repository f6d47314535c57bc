/** What only nodes know, for listings that must not fail because one of them is away: df, prune. */
import {isCetusError} from '../base/errors';
import type {Volume} from '../schema/objects';
import type {Context} from './context';

/** `otherwise` where the node is away, or the thing went away meanwhile. */
export async function unlessAway<T>(ask: () => Promise<T>, otherwise: T): Promise<T> {
  try {
    return await ask();
  } catch (err) {
    if (!isCetusError(err, 'unavailable') && !isCetusError(err, 'notFound') && !isCetusError(err, 'timeout')) throw err;
    return otherwise;
  }
}

/** -1 is the Engine's "not known". A volume that no container has used yet is on no node and holds nothing. */
export async function volumeSize(context: Context, volume: Volume): Promise<number> {
  if (!volume.nodeId) return 0;
  return unlessAway(async () => (await (await context.fleet.agent(volume.nodeId)).volumeUsage(volume.id)).size, -1);
}
