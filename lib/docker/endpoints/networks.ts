/** Networks. */
import {CetusError} from '../../base/errors';
import type {NetworkVerbs} from '../../datacenter/verbs';
import type {EndpointSettings} from '../../schema/docker';
import {readBody} from '../body';
import type {Exchange, Handlers} from '../exchange';
import {NETWORK_CHANGES, fromOlder} from '../older-bodies';
import {networkView} from '../views/network';

async function list(x: Exchange): Promise<void> {
  const networks = await x.datacenter.networks.list(x.caller, x.query.filters());
  // The containers of a network are shown by inspect only.
  x.json(200, networks.map((network) => networkView(network, [])));
}

async function inspect(x: Exchange): Promise<void> {
  const network = await x.datacenter.networks.get(x.caller, x.param('id'));
  const scope = x.query.text('scope');
  if (scope && scope !== network.scope) throw new CetusError('notFound', `network ${x.param('id')} not found`);
  x.json(200, networkView(network, await x.datacenter.networks.containers(x.caller, network)));
}

async function create(x: Exchange): Promise<void> {
  const body = await readBody<Parameters<NetworkVerbs['create']>[1]>(x, 'networkCreate');
  fromOlder(body, NETWORK_CHANGES, (minor) => x.speaks(minor));
  if (!body.Name) throw new CetusError('invalid', 'network name is required');
  const {id, warning} = await x.datacenter.networks.create(x.caller, body);
  x.json(201, {Id: id, Warning: warning});
}

async function remove(x: Exchange): Promise<void> {
  await x.datacenter.networks.remove(x.caller, x.param('id'));
  x.empty(204);
}

async function connect(x: Exchange): Promise<void> {
  const body = await readBody<{Container: string; EndpointConfig?: EndpointSettings}>(x, 'networkConnect');
  await x.datacenter.networks.connect(x.caller, x.param('id'), named(body.Container), body.EndpointConfig ?? {});
  x.empty(200);
}

async function disconnect(x: Exchange): Promise<void> {
  const body = await readBody<{Container: string; Force?: boolean}>(x, 'networkDisconnect');
  await x.datacenter.networks.disconnect(x.caller, x.param('id'), named(body.Container), body.Force ?? false);
  x.empty(200);
}

function named(container: string): string {
  if (!container) throw new CetusError('invalid', 'invalid container name or ID: value is empty');
  return container;
}

async function prune(x: Exchange): Promise<void> {
  const {deleted} = await x.datacenter.networks.prune(x.caller, x.query.filters());
  x.json(200, {NetworksDeleted: deleted.length ? deleted : null});
}

export const networkHandlers: Handlers = {
  NetworkList: list,
  NetworkInspect: inspect,
  NetworkCreate: create,
  NetworkDelete: remove,
  NetworkConnect: connect,
  NetworkDisconnect: disconnect,
  NetworkPrune: prune,
};
