/**
 * A containerd that was killed while it prepared a snapshot leaves a directory that its database knows nothing of, under the number that it
 * gives out next: the next preparation fails with "file exists", and takes that directory away as it fails. So it is asked a second time.
 */
import {asCetusError} from '../../base/errors';
import type {ContainerdClient} from './connect';
import {hasStatus} from './status';

export async function prepareSnapshot(client: ContainerdClient, request: Parameters<ContainerdClient['snapshots']['prepare']>[0]): ReturnType<ContainerdClient['snapshots']['prepare']> {
  try {
    return await client.snapshots.prepare(request);
  } catch (err) {
    if (hasStatus(err, 'ALREADY_EXISTS') || !/failed to rename.*file exists/.test(asCetusError(err).message)) throw err;
    return await client.snapshots.prepare(request);
  }
}
