/** network.create: one commit takes the name and the part of the address space. Nodes make the bridge when the first container starts on it. */
import {CetusError} from '../../base/errors';
import {ALL, eq} from '../../moray/filter';
import type {BatchOp, Stored} from '../../moray/moray';
import {targets, type NetworkCreateParams} from '../../schema/chains';
import type {Network, SubnetBlock} from '../../schema/objects';
import type {Chain} from '../../workflow/chain';
import {defaultGateway} from '../ipam';
import type {Ctx, JobServices} from '../services';
import {eventPut, NETWORKS} from '../steps';
import {blocksOf, chooseSubnet} from '../subnets';
import {SUBNETS} from '../subnet-rows';
import {takeVni} from '../vnis';

const BRIDGE_NAME = 'com.docker.network.bridge.name';

export const create: Chain<NetworkCreateParams, JobServices> = {
  name: 'network.create',
  version: 1,
  target: (params) => targets.network(params.network.id),
  steps: [{
    kind: 'plan', name: 'create', plan,
    onConflict: async (ctx, error) => new CetusError('conflict', `network with name ${ctx.params.network.name} already exists`, {cause: error}),
  }],
};

async function plan(ctx: Ctx<NetworkCreateParams>): Promise<{output: Network; writes: BatchOp[]}> {
  const asked = ctx.params.network;
  const writes: BatchOp[] = [];
  let network = asked;
  if (asked.driver === 'bridge') {
    if (asked.options[BRIDGE_NAME]) await refuseSameBridge(ctx);
    await ctx.gate(SUBNETS);
    const rows = await ctx.moray.list<SubnetBlock>(SUBNETS, ALL);
    const {subnetPools: pools, avoidSubnets: avoid} = ctx.services.config;
    const subnet = chooseSubnet({requested: asked.subnet, taken: rows.map((r) => r.value), pools, avoid});
    network = {...asked, subnet, gateway: asked.gateway || defaultGateway(subnet, asked.ipRange)};
    const {vni, write} = await takeVni(ctx, network.id);
    network = {...network, vni};
    writes.push(...takeBlocks(network, rows), write);
  }
  writes.push({op: 'put', bucket: NETWORKS, key: network.id, value: network, etag: null});
  // The Engine makes its own networks without a word.
  if (!network.predefined) writes.push(eventPut(ctx, network.account, 'network', 'create', network.id, {name: network.name, type: network.driver}));
  return {output: network, writes};
}

/** Nodes would refuse the second one, whose interface is another's. */
async function refuseSameBridge(ctx: Ctx<NetworkCreateParams>): Promise<void> {
  const {id, bridgeName, account} = ctx.params.network;
  const other = (await ctx.moray.list<Network>(NETWORKS, eq('driver', 'bridge'))).map((stored) => stored.value).find((network) => network.bridgeName === bridgeName && network.id !== id);
  if (!other) return;
  const shown = other.account === account ? `network ${other.id} (${bridgeName})` : 'another network';
  throw new CetusError('forbidden', `cannot create network ${id} (${bridgeName}): conflicts with ${shown}: networks have same bridge name`);
}

function takeBlocks(network: Network, rows: Stored<SubnetBlock>[]): BatchOp[] {
  return blocksOf(network.subnet).map((block): BatchOp => {
    const row = rows.find((r) => r.key === block);
    const value: SubnetBlock = {block, networks: {...row?.value.networks, [network.id]: network.subnet}};
    return {op: 'put', bucket: SUBNETS, key: block, value, etag: row?.etag ?? null};
  });
}
