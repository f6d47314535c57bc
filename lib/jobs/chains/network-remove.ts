/** network.remove: marked first (nobody can come to use it), looked at once more, taken from the nodes, then forgotten with its subnet. */
import {CetusError, isCetusError} from '../../base/errors';
import {eq} from '../../moray/filter';
import type {BatchOp} from '../../moray/moray';
import {targets, type NetworkRemoveParams} from '../../schema/chains';
import type {Container} from '../../schema/container';
import type {Node} from '../../schema/node';
import type {AddressLease, Network} from '../../schema/objects';
import type {Chain} from '../../workflow/chain';
import type {Ctx, JobServices} from '../services';
import {ADDRESSES, CONTAINERS, eventPut, NETWORKS, task} from '../steps';
import {releaseBlocks} from '../subnet-rows';
import {releaseVni} from '../vnis';

const ASKED_AT_ONCE = 32;

export const remove: Chain<NetworkRemoveParams, JobServices> = {
  name: 'network.remove',
  version: 1,
  target: (params) => targets.network(params.networkId),
  steps: [
    {kind: 'plan', name: 'mark', plan: mark, undo: unmark},
    {kind: 'act', name: 'remove', do: removeFromNodes, timeoutMs: 600_000},
    {kind: 'plan', name: 'forget', plan: forget},
  ],
  result: () => null,
};

async function mark(ctx: Ctx<NetworkRemoveParams>): Promise<{writes: BatchOp[]}> {
  const {networkId, account} = ctx.params;
  const stored = await ctx.moray.peek<Network>(NETWORKS, networkId);
  if (!stored || stored.value.account !== account) throw new CetusError('notFound', `network ${networkId} not found`);
  if (stored.value.predefined) throw new CetusError('forbidden', `${stored.value.name} is a pre-defined network and cannot be removed`);
  await refuseUsed(ctx, stored.value);
  return {writes: [{op: 'put', bucket: NETWORKS, key: networkId, value: {...stored.value, removing: true}, etag: stored.etag}]};
}

async function refuseUsed(ctx: Ctx<NetworkRemoveParams>, network: Network): Promise<void> {
  const leases = await ctx.moray.list<AddressLease>(ADDRESSES, eq('networkId', network.id), {limit: 20});
  if (!leases.length) return;
  const holders = await Promise.all(leases.map(async ({value}) => {
    const holder = await ctx.moray.peek<Container>(CONTAINERS, value.containerId);
    return `name:"${holder?.value.name ?? ''}" id:"${value.endpointId.slice(0, 12)}"`;
  }));
  throw new CetusError('forbidden', `error while removing network: network ${network.name} has active endpoints (${holders.join(', ')})`);
}

async function unmark(ctx: Ctx<NetworkRemoveParams>): Promise<{writes: BatchOp[]}> {
  const stored = await ctx.moray.peek<Network>(NETWORKS, ctx.params.networkId);
  if (!stored) return {writes: []};
  const {removing: _mark, ...network} = stored.value;
  return {writes: [{op: 'put', bucket: NETWORKS, key: stored.key, value: network, etag: stored.etag}]};
}

async function removeFromNodes(ctx: Ctx<NetworkRemoveParams>): Promise<void> {
  const {networkId} = ctx.params;
  // A start that was committed while we marked shows its lease by now; after the mark there can be no new one.
  await refuseUsed(ctx, (await ctx.moray.get<Network>(NETWORKS, networkId)).value);
  const failures: unknown[] = [];
  const nodes = (await ctx.services.fleet.nodes()).values();
  // All of them are asked before one that did not answer fails the step: none hears of it behind the step's end.
  await Promise.all(Array.from({length: ASKED_AT_ONCE}, async () => {
    for (const node of nodes) await removeFrom(ctx, node).catch((err: unknown) => failures.push(err));
  }));
  if (failures.length) throw failures[0];
}

async function removeFrom(ctx: Ctx<NetworkRemoveParams>, node: Node): Promise<void> {
  const {networkId} = ctx.params;
  try {
    await task(ctx, node.id, `remove.${node.id}`, {kind: 'network.remove', networkId});
  } catch (err) {
    if (ctx.attempt < 3 && node.liveness === 'alive' && (isCetusError(err, 'unavailable') || isCetusError(err, 'timeout'))) throw err;
    // An unused bridge on a node that cannot be reached is harmless: no container of another network can get onto it.
    ctx.log.warn({err, nodeId: node.id, networkId}, 'a node may still have a removed network');
  }
}

async function forget(ctx: Ctx<NetworkRemoveParams>): Promise<{writes: BatchOp[]}> {
  const {networkId} = ctx.params;
  const stored = await ctx.moray.get<Network>(NETWORKS, networkId);
  const {account, name, driver} = stored.value;
  return {
    writes: [
      {op: 'delete', bucket: NETWORKS, key: networkId, etag: stored.etag},
      ...(await releaseBlocks(ctx, stored.value)),
      ...releaseVni(stored.value),
      eventPut(ctx, account, 'network', 'destroy', networkId, {name, type: driver}),
    ],
  };
}
