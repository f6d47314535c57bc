/** From what a person writes to one container of the account: id, name, unique id prefix, in the Engine's order and with its texts. */
import {CetusError} from '../../base/errors';
import {and, eq, startsWith} from '../../moray/filter';
import {BUCKETS} from '../../schema/buckets';
import type {Container} from '../../schema/container';
import type {Context} from '../context';

const BUCKET = BUCKETS.containers.name;
const FULL_ID = /^[0-9a-f]{64}$/;
const ID_PREFIX = /^[0-9a-f]{1,64}$/;

export const noSuchContainer = (nameOrId: string): CetusError => new CetusError('notFound', `No such container: ${nameOrId}`);

/** By full id; undefined where the account has none, or not yet. */
export async function peekContainer(context: Pick<Context, 'moray'>, account: string, id: string): Promise<Container | undefined> {
  const stored = await context.moray.peek<Container>(BUCKET, id);
  return stored && stored.value.account === account && stored.value.provisioning !== true ? stored.value : undefined;
}

export async function resolveContainer(context: Pick<Context, 'moray'>, account: string, nameOrId: string): Promise<Container> {
  if (FULL_ID.test(nameOrId)) {
    const found = await peekContainer(context, account, nameOrId);
    if (found) return found;
  }
  const name = nameOrId.replace(/^\//, '');
  // Longer than any name or id can be: it need not be looked for.
  if (name === '' || name.length > 255) throw noSuchContainer(nameOrId);
  const [named] = await context.moray.list<Container>(BUCKET, eq('accountName', `${account}/${name}`), {limit: 1});
  if (named && named.value.provisioning !== true) return named.value;
  if (!ID_PREFIX.test(name)) throw noSuchContainer(nameOrId);
  const byPrefix = (await context.moray.list<Container>(BUCKET, and(eq('account', account), startsWith('_key', name)), {limit: 3})).filter((s) => s.value.provisioning !== true);
  if (byPrefix.length > 1) throw new CetusError('invalid', `multiple IDs found with provided prefix: ${name}`);
  if (byPrefix.length === 0) throw noSuchContainer(nameOrId);
  return byPrefix[0]!.value;
}

/** The Engine's words for a container whose state does not allow what was asked. */
export const notRunning = (c: Container): CetusError => new CetusError('conflict', `container ${c.id} is not running`);
export const restarting = (c: Container): CetusError => new CetusError('conflict', `container ${c.id} is restarting, wait until the container is running`);
export const isUp = (c: Container): boolean => c.status === 'running' || c.status === 'paused';

/** For what needs a process: exec, attach, top, resize. */
export function requireRunning(c: Container, doing?: string, asked = c.id): void {
  if (c.status === 'restarting') throw restarting(c);
  if (c.status === 'paused' && doing) throw new CetusError('conflict', `container ${asked} is paused, unpause the container before ${doing}`);
  if (!isUp(c)) throw notRunning(c);
}
