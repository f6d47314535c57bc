/** network.create: one commit takes the name and the part of the address space. Nodes make the bridge when the first container starts on it. */
import {CetusError} from '../../base/errors';
import {ALL} from '../../moray/filter';
import type {BatchOp, Stored} from '../../moray/moray';
import {targets, type NetworkCreateParams} from '../../schema/chains';
import type {Network, SubnetBlock} from '../../schema/objects';
import type {Chain} from '../../workflow/chain';
import {formatAddress, parseCidr} from '../ipam';
import type {Ctx, JobServices} from '../services';
import {eventPut, NETWORKS} from '../steps';
import {blocksOf, chooseSubnet} from '../subnets';
import {SUBNETS} from '../subnet-rows';

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
    await ctx.gate(SUBNETS);
    const rows = await ctx.moray.list<SubnetBlock>(SUBNETS, ALL);
    const {subnetPools: pools, avoidSubnets: avoid} = ctx.services.config;
    const subnet = chooseSubnet({requested: asked.subnet, taken: rows.map((r) => r.value), pools, avoid});
    network = {...asked, subnet, gateway: asked.gateway || formatAddress(parseCidr(asked.ipRange || subnet).base + 1)};
    writes.push(...takeBlocks(network, rows));
  }
  writes.push({op: 'put', bucket: NETWORKS, key: network.id, value: network, etag: null});
  // The Engine makes its own networks without a word.
  if (!network.predefined) writes.push(eventPut(ctx, network.account, 'network', 'create', network.id, {name: network.name, type: network.driver}));
  return {output: network, writes};
}

function takeBlocks(network: Network, rows: Stored<SubnetBlock>[]): BatchOp[] {
  return blocksOf(network.subnet).map((block): BatchOp => {
    const row = rows.find((r) => r.key === block);
    const value: SubnetBlock = {block, networks: {...row?.value.networks, [network.id]: network.subnet}};
    return {op: 'put', bucket: SUBNETS, key: block, value, etag: row?.etag ?? null};
  });
}
