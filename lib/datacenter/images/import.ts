/** `docker import`: the config that the image is to have, and the lines that the client sees; the archive is the node's to read. */
import type {Readable} from 'node:stream';
import {CetusError} from '../../base/errors';
import type {ProgressMessage} from '../../schema/docker';
import type {Context} from '../context';
import type {Caller, ImportOptions} from '../verbs';
import {applyChanges} from './changes/changes';
import {newReference} from './commit';
import {followProgress} from './progress';

export async function* importImage(context: Context, caller: Caller, source: Readable | string, options: ImportOptions): AsyncGenerator<ProgressMessage> {
  const reference = newReference(options.repository, options.tag);
  const config = applyChanges({}, options.changes);
  const from = typeof source === 'string' ? source : '-';
  if (from === '') throw new CetusError('invalid', 'no source of the import: "-" is the request\'s body, everything else an address');
  const params = {
    account: caller.account, importId: context.ids.uuid(), reference, config, message: options.message || `Imported from ${from}`, ...(options.platform === undefined ? {} : {platform: options.platform}),
  };
  // Whoever hangs up ends it: an address may send for ever.
  const {imageId} = yield* followProgress((onProgress) =>
    context.run(caller, 'image.import', params, {secrets: typeof source === 'string' ? {url: source} : {archive: source}, onProgress, signal: caller.signal}));
  yield {status: imageId};
}
