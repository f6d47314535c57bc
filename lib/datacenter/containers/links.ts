/** Links after create: what `ps` shows of them, and `rm --link`. The texts are the Engine's. */
import {CetusError, isCetusError} from '../../base/errors';
import {BUCKETS} from '../../schema/buckets';
import type {Container} from '../../schema/container';
import type {Context} from '../context';
import type {Caller} from '../verbs';
import {noSuchContainer, resolveContainer} from './resolve';

const BUCKET = BUCKETS.containers.name;
const TRIES = 10;

/** By the id of who is called so. Pure. */
export function linkNames(all: readonly Container[]): ReadonlyMap<string, string[]> {
  const names = new Map<string, string[]>();
  for (const c of all)
    for (const {containerId, alias} of c.links ?? []) names.set(containerId, [...names.get(containerId) ?? [], `/${c.name}/${alias}`]);
  return names;
}

/** The container that has the link of this name. */
export async function linkOwner(context: Context, caller: Caller, name: string): Promise<Container> {
  const {parent, alias} = parts(name);
  const owner = await resolveContainer(context, caller.account, parent).catch((err: unknown) => { throw isCetusError(err, 'notFound') ? noSuchContainer(name) : err; });
  if (!owner.links?.some((link) => link.alias === alias)) throw noSuchContainer(name);
  return owner;
}

export async function unlink(context: Context, caller: Caller, name: string): Promise<void> {
  const {alias} = parts(name);
  for (let tries = 1; ; tries += 1) {
    const {id} = await linkOwner(context, caller, name);
    const stored = await context.moray.get<Container>(BUCKET, id);
    try {
      await context.moray.put(BUCKET, id, {...stored.value, links: stored.value.links?.filter((link) => link.alias !== alias)}, {etag: stored.etag});
      return;
    } catch (err) {
      if (!isCetusError(err, 'etagConflict') || tries === TRIES) throw err;
    }
  }
}

function parts(name: string): {parent: string; alias: string} {
  const [, parent, alias] = /^\/?([^/]+)\/([^/]+)$/.exec(name) ?? [];
  if (parent === undefined) throw new CetusError('conflict', 'Conflict, cannot remove the default link name of the container');
  return {parent, alias: alias!};
}
