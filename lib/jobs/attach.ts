/**
 * A container's places on its networks and its host ports, for the time that it runs: decided here, held by the leases that go into the
 * same batch. Refusals are the Engine's.
 */
import {CetusError} from '../base/errors';
import {SHORT_ID_LENGTH} from '../base/ids';
import {eq} from '../moray/filter';
import type {BatchOp, Stored} from '../moray/moray';
import {type Container, type NetworkAttachment, type NetworkRequest, NO_NETWORK, type PublishedPort, withDefaultRoute} from '../schema/container';
import type {AddressLease, Network} from '../schema/objects';
import {releaseLeases} from '../fleet/observe';
import {chooseAddress, macOf, parseCidr} from './ipam';
import {resolveLinks} from './links';
import {publish} from './publish';
import type {Ctx} from './services';
import {ADDRESSES, CONTAINERS, NETWORKS} from './steps';
import {takeVni} from './vnis';

export interface Held { attachments: NetworkAttachment[]; publishedPorts: PublishedPort[]; writes: BatchOp[] }

/** Everything that a start needs. `before`: what the container had, tried first; `portsBefore`: the same of ports that were ours to choose, for one that only moves. */
export async function hold(ctx: Ctx<unknown>, c: Container, before: readonly NetworkAttachment[] = [], portsBefore: readonly PublishedPort[] = []): Promise<Held> {
  const {networkMode} = c.spec;
  if (networkMode.startsWith('container:')) await checkShared(ctx, c, networkMode.slice('container:'.length));
  await resolveLinks(ctx, c);
  const wanted = Object.entries(c.networks).filter(([name]) => name !== NO_NETWORK);
  // One that was made without a network may have been plugged into some since.
  if (networkMode !== 'networks' && (networkMode !== 'none' || wanted.length === 0)) return {attachments: [], publishedPorts: [], writes: []};
  const writes: BatchOp[] = [];
  const places: NetworkAttachment[] = [];
  let own = false;
  for (const [name, request] of wanted) {
    const place = await attachment(ctx, c, name, request, before.find((a) => a.networkId === request.networkId)?.address);
    places.push(place.attachment);
    writes.push(...place.writes);
    own ||= place.ownLeases;
  }
  const attachments = withDefaultRoute(places);
  const ports = await publish(ctx, c, attachments, portsBefore);
  // Leftovers of a start that broke off: let go first, in the same batch.
  return {attachments, publishedPorts: ports.ports, writes: [...(own || ports.ownLeases ? releaseLeases(c.id) : []), ...writes, ...ports.writes]};
}

/** One place on one network, with its lease. */
export async function attachment(
  ctx: Ctx<unknown>, c: Container, name: string, request: NetworkRequest, hint?: string,
): Promise<{attachment: NetworkAttachment; network: Network; writes: BatchOp[]; ownLeases: boolean}> {
  const stored = await usableNetwork(ctx, request.networkId, name);
  const network = stored.value;
  const {used, own} = await addressesOf(ctx, c, network.id);
  const address = chooseAddress({
    network, used, shunned: ctx.services.recent.shunned(network.id, c.id),
    requested: request.settings.IPAMConfig?.IPv4Address || undefined, hint,
  });
  ctx.services.recent.give(network.id, address, c.id);
  const mac = request.settings.MacAddress || (Object.keys(c.networks).length === 1 && c.spec.config.MacAddress) || macOf(address);
  const endpointId = ctx.services.ids.hex64();
  const names = aliases(c, network, request);
  const lease: AddressLease = {networkId: network.id, address, account: c.account, containerId: c.id, endpointId, mac, nodeId: c.nodeId, aliases: names};
  return {
    network,
    attachment: {
      networkId: network.id, networkName: network.name, endpointId, address, prefixLength: parseCidr(network.subnet).length, gateway: network.gateway, mac,
      aliases: names, ...linksOf(request), isDefaultRoute: false, internal: network.internal,
      ...(request.settings.GwPriority ? {gwPriority: request.settings.GwPriority} : {}),
    },
    writes: [
      // A removal that has begun since we looked changes the network's etag.
      ...(ctx.services.fleet.tables?.active && network.vni === undefined ? await withSegment(ctx, stored) : [{op: 'check', bucket: NETWORKS, key: network.id, etag: stored.etag} as const]),
      {op: 'put', bucket: ADDRESSES, key: `${network.id}/${address}`, value: lease, etag: null},
    ],
    ownLeases: own,
  };
}

/**
 * Which addresses others have; `own`: whether the container has some itself. In a fleet by what this process has heard: the lease's write says whether that still held, and the next try
 * asks the store. Reading them all for each start makes a network of N cost N * N.
 */
async function addressesOf(ctx: Ctx<unknown>, c: Container, networkId: string): Promise<{used: {has(address: string): boolean}; own: boolean}> {
  const heard = ctx.attempt === 1 ? ctx.services.fleet.tables?.held(networkId) : undefined;
  if (heard) {
    const mine = new Set((await ctx.moray.list<AddressLease>(ADDRESSES, eq('containerId', c.id))).filter((l) => l.value.networkId === networkId).map((l) => l.value.address));
    return {used: {has: (address) => heard.has(address) && !mine.has(address)}, own: mine.size > 0};
  }
  const leases = await ctx.moray.list<AddressLease>(ADDRESSES, eq('networkId', networkId));
  const others = leases.filter((l) => l.value.containerId !== c.id);
  return {used: new Set(others.map((l) => l.value.address)), own: leases.length !== others.length};
}

/** Made by an earlier version, when there was one node: the first container that finds others gives it its segment. */
async function withSegment(ctx: Ctx<unknown>, {key, value, etag}: Stored<Network>): Promise<BatchOp[]> {
  const {vni, write} = await takeVni(ctx, value.id);
  return [{op: 'put', bucket: NETWORKS, key, value: {...value, vni}, etag}, write];
}

export async function usableNetwork(ctx: Ctx<unknown>, networkId: string, name: string): Promise<Stored<Network>> {
  const stored = await ctx.moray.peek<Network>(NETWORKS, networkId);
  if (!stored || stored.value.removing) throw new CetusError('notFound', `network ${name} not found`);
  return stored;
}

function aliases(c: Container, network: Network, request: NetworkRequest): string[] {
  // The default bridge resolves no names, as the Engine's does not.
  if (network.predefined) return [];
  return [...new Set([c.name, ...(request.settings.Aliases ?? []), c.id.slice(0, SHORT_ID_LENGTH), c.spec.config.Hostname ?? ''].filter(Boolean))];
}

/** "name:alias", checked when it was asked for. */
function linksOf({settings}: NetworkRequest): Pick<NetworkAttachment, 'links'> {
  const links = (settings.Links ?? []).map((text) => {
    const [name = '', alias = name] = text.split(':');
    return {name: name.replace(/^\//, ''), alias: alias.slice(alias.lastIndexOf('/') + 1)};
  });
  return links.length ? {links} : {};
}

async function checkShared(ctx: Ctx<unknown>, c: Container, otherId: string): Promise<void> {
  const other = await ctx.moray.peek<Container>(CONTAINERS, otherId);
  if (!other || other.value.provisioning) throw new CetusError('notFound', `No such container: ${otherId}`);
  if (other.value.status !== 'running') throw new CetusError('conflict', `cannot join network namespace of a non running container: ${otherId}`);
  if (other.value.nodeId !== c.nodeId) throw new CetusError('conflict', `cannot join network namespace of container ${otherId}: it is on node ${other.value.node}, not on ${c.node}`);
}
