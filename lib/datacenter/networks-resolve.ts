/** From what a person writes to one network of the account: full id, name, unique id prefix. */
import {CetusError} from '../base/errors';
import {and, eq, startsWith} from '../moray/filter';
import {BUCKETS} from '../schema/buckets';
import type {Network} from '../schema/objects';
import type {Context} from './context';
import {PREDEFINED, type Predefined, type PredefinedNetworks} from './networks-predefined';
import type {Caller} from './verbs';

const BUCKET = BUCKETS.networks.name;
const MAX_NAME = 1024;

export async function resolveNetwork(context: Context, predefined: PredefinedNetworks, caller: Caller, nameOrId: string): Promise<Network> {
  if ((PREDEFINED as readonly string[]).includes(nameOrId)) return (await predefined.of(caller))[nameOrId as Predefined];
  if (/^[0-9a-f]{64}$/.test(nameOrId)) {
    const found = await context.moray.peek<Network>(BUCKET, nameOrId);
    if (found?.value.account === caller.account) return found.value;
  }
  // Longer than the store takes a name: there is none.
  if (nameOrId.length > MAX_NAME) throw new CetusError('notFound', `network ${nameOrId} not found`);
  const [named] = await context.moray.list<Network>(BUCKET, eq('accountName', `${caller.account}/${nameOrId}`), {limit: 1});
  if (named) return named.value;
  if (/^[0-9a-f]+$/.test(nameOrId)) {
    const found = await context.moray.list<Network>(BUCKET, and(eq('account', caller.account), startsWith('_key', nameOrId)), {limit: 3});
    if (found.length > 1) throw new CetusError('invalid', `network ${nameOrId} is ambiguous (${found.length} matches found based on ID prefix)`);
    if (found[0]) return found[0].value;
  }
  throw new CetusError('notFound', `network ${nameOrId} not found`);
}
