/** network.connect: the place is held and written into the container, then, where it runs, the node plugs it in. Under the container's lock. */
import {CetusError} from '../../base/errors';
import {and, eq} from '../../moray/filter';
import type {BatchOp} from '../../moray/moray';
import {nodeNetwork} from '../../schema/agent';
import {targets, type NetworkConnectParams} from '../../schema/chains';
import {type Container, type NetworkAttachment, NO_NETWORK, withDefaultRoute} from '../../schema/container';
import type {Network} from '../../schema/objects';
import type {Chain} from '../../workflow/chain';
import {attachment, usableNetwork} from '../attach';
import type {Ctx, JobServices} from '../services';
import {ADDRESSES, container, CONTAINERS, eventPut, isRunning, NETWORKS, putContainer, task, undoTask} from '../steps';

interface Connecting {
  nodeId: string;
  networkName: string;
  /** null where the container does not run, or the network is none */
  attachment: NetworkAttachment | null;
  /** False of one that does not run: it is told of when it starts, as in the Engine. */
  told?: boolean;
  /** It does not run and has the network already: as in the Engine no mistake, and no change. */
  nothingNew?: true;
}

export const connect: Chain<NetworkConnectParams, JobServices> = {
  name: 'network.connect',
  version: 1,
  target: (params) => targets.container(params.containerId),
  steps: [
    {kind: 'plan', name: 'hold', plan: holdPlace, undo: letGoOfPlace},
    {
      kind: 'act', name: 'connect', do: plug,
      undo: async (ctx) => {
        const {nodeId, attachment: place} = held(ctx);
        const {containerId, networkId} = ctx.params;
        if (place) await undoTask(ctx, nodeId, 'connect', {kind: 'network.disconnect', containerId, networkId});
      },
    },
    {kind: 'plan', name: 'connected', plan: connected},
  ],
  result: () => null,
};

function held(ctx: Ctx<NetworkConnectParams>): Connecting {
  return ctx.outputs['hold'] as Connecting;
}

/** Of what can be connected and disconnected. */
export const typeOf = (networkName: string): string => (networkName === NO_NETWORK ? 'null' : 'bridge');

export function refuseFixedNetworking(c: Container): void {
  const mode = c.spec.networkMode;
  if (mode === 'host' || mode.startsWith('container:'))
    throw new CetusError('forbidden', 'container sharing network namespace with another container or host cannot be connected to any other network');
  if (c.status === 'removing' || c.status === 'dead') throw new CetusError('conflict', `container ${c.id} is marked for removal and cannot be connected or disconnected to the network`);
}

async function holdPlace(ctx: Ctx<NetworkConnectParams>): Promise<{output: Connecting; writes: BatchOp[]}> {
  const {containerId, networkId, settings} = ctx.params;
  const stored = await container(ctx, containerId);
  const c = stored.value;
  refuseFixedNetworking(c);
  const {value: network} = await usableNetwork(ctx, networkId, networkId);
  const running = isRunning(c);
  if (Object.values(c.networks).some((r) => r.networkId === networkId)) {
    if (!running) return {output: {nodeId: c.nodeId, networkName: network.name, attachment: null, told: false, nothingNew: true}, writes: []};
    throw new CetusError('forbidden', `endpoint with name ${c.name} already exists in network ${network.name}`);
  }
  const nothing = network.driver === 'null';
  if (c.networks[NO_NETWORK] || (nothing && Object.keys(c.networks).length > 0))
    throw new CetusError('forbidden', 'container cannot be connected to multiple networks with one of the networks in private (none) mode');
  const request = {networkId, settings};
  const networks = {...c.networks, [network.name]: request};
  if (nothing || !running) {
    return {output: {nodeId: c.nodeId, networkName: network.name, attachment: null, told: running}, writes: [putContainer(stored, {...c, networks})]};
  }
  const place = await attachment(ctx, c, network.name, request);
  const attachments = withDefaultRoute([...c.attachments, place.attachment]);
  return {
    output: {nodeId: c.nodeId, networkName: network.name, attachment: attachments.at(-1)!, told: true},
    writes: [...place.writes, putContainer(stored, {...c, networks, attachments})],
  };
}

async function letGoOfPlace(ctx: Ctx<NetworkConnectParams>, output: unknown): Promise<{writes: BatchOp[]}> {
  const {networkName, nothingNew} = output as Connecting;
  return {writes: nothingNew ? [] : await withoutNetwork(ctx, networkName)};
}

/** The container without the network, and its lease there deleted. */
export async function withoutNetwork(ctx: Ctx<{containerId: string; networkId: string}>, networkName: string): Promise<BatchOp[]> {
  const {containerId, networkId} = ctx.params;
  const release: BatchOp = {op: 'deleteMany', bucket: ADDRESSES, filter: and(eq('containerId', containerId), eq('networkId', networkId))};
  const stored = await ctx.moray.peek<Container>(CONTAINERS, containerId);
  if (!stored) return [release];
  const {[networkName]: _left, ...networks} = stored.value.networks;
  const attachments = withDefaultRoute(stored.value.attachments.filter((a) => a.networkId !== networkId));
  return [putContainer(stored, {...stored.value, networks, attachments}), release];
}

async function plug(ctx: Ctx<NetworkConnectParams>): Promise<void> {
  const {nodeId, attachment: place} = held(ctx);
  const {containerId, networkId} = ctx.params;
  if (!place) return;
  const {value: network} = await ctx.moray.get<Network>(NETWORKS, networkId);
  await ctx.services.fleet.tables?.prepare(nodeId, [nodeNetwork(network)]);
  await task(ctx, nodeId, 'connect', {kind: 'network.connect', containerId, network: nodeNetwork(network), attachment: place});
}

async function connected(ctx: Ctx<NetworkConnectParams>): Promise<{writes: BatchOp[]}> {
  const {containerId, networkId} = ctx.params;
  if (held(ctx).told === false) return {writes: []};
  const {value: c} = await container(ctx, containerId);
  return {writes: [eventPut(ctx, c.account, 'network', 'connect', networkId, {container: containerId, name: held(ctx).networkName, type: typeOf(held(ctx).networkName)})]};
}
