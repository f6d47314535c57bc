/** network.disconnect: unplugged on the node first, where it runs; then the place is given back. Under the container's lock. */
import {CetusError, isCetusError} from '../../base/errors';
import type {BatchOp} from '../../moray/moray';
import {targets, type NetworkDisconnectParams} from '../../schema/chains';
import {NO_NETWORK} from '../../schema/container';
import type {Network} from '../../schema/objects';
import type {Chain} from '../../workflow/chain';
import type {Ctx, JobServices} from '../services';
import {container, eventPut, isRunning, NETWORKS, task} from '../steps';
import {refuseFixedNetworking, typeOf, withoutNetwork} from './network-connect';

interface Leaving { nodeId: string; networkName: string; /** on a node that has something to unplug */ running: boolean }

export const disconnect: Chain<NetworkDisconnectParams, JobServices> = {
  name: 'network.disconnect',
  version: 1,
  target: (params) => targets.container(params.containerId),
  steps: [
    {kind: 'plan', name: 'check', plan: check},
    {kind: 'act', name: 'unplug', do: unplug},
    {kind: 'plan', name: 'leave', plan: leave},
  ],
  result: () => null,
};

async function check(ctx: Ctx<NetworkDisconnectParams>): Promise<{output: Leaving}> {
  const {containerId, networkId} = ctx.params;
  const {value: c} = await container(ctx, containerId);
  refuseFixedNetworking(c);
  const [networkName] = Object.entries(c.networks).find(([, r]) => r.networkId === networkId) ?? [];
  if (networkName === undefined) {
    const network = await ctx.moray.peek<Network>(NETWORKS, networkId);
    throw new CetusError('forbidden', `container ${containerId} is not connected to network ${network?.value.name ?? networkId}`);
  }
  return {output: {nodeId: c.nodeId, networkName, running: isRunning(c) && networkName !== NO_NETWORK}};
}

async function unplug(ctx: Ctx<NetworkDisconnectParams>): Promise<void> {
  const {nodeId, running} = ctx.outputs['check'] as Leaving;
  const {containerId, networkId, force} = ctx.params;
  if (!running) return;
  try {
    await task(ctx, nodeId, 'unplug', {kind: 'network.disconnect', containerId, networkId});
  } catch (err) {
    // Forced, the datacenter lets go of a place that the node cannot give back; what has exited meanwhile has none.
    if (!force && !isCetusError(err, 'notFound')) throw err;
    ctx.log.warn({err, containerId, networkId}, 'disconnected although the node did not agree');
  }
}

async function leave(ctx: Ctx<NetworkDisconnectParams>): Promise<{writes: BatchOp[]}> {
  const {containerId, networkId} = ctx.params;
  const {networkName} = ctx.outputs['check'] as Leaving;
  const {value: c} = await container(ctx, containerId);
  return {
    writes: [
      ...(await withoutNetwork(ctx, networkName)),
      eventPut(ctx, c.account, 'network', 'disconnect', networkId, {container: containerId, name: networkName, type: typeOf(networkName)}),
    ],
  };
}
