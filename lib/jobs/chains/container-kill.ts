/**
 * container.kill: a signal. It has its own lock, not the container's: a kill must get through while a stop waits for its grace to end.
 * What it writes of the container goes by generation and etag, so it disturbs no other job.
 */
import {CetusError} from '../../base/errors';
import type {BatchOp} from '../../moray/moray';
import type {TaskOutput} from '../../schema/agent';
import {targets, type KillParams} from '../../schema/chains';
import type {Container} from '../../schema/container';
import type {Chain} from '../../workflow/chain';
import type {Ctx, JobServices} from '../services';
import {container, CONTAINERS, isRunning, observed, task} from '../steps';

export const kill: Chain<KillParams, JobServices> = {
  name: 'container.kill',
  version: 1,
  target: (params) => `${targets.container(params.containerId)}/kill`,
  steps: [
    {kind: 'plan', name: 'check', plan: check},
    {
      kind: 'act', name: 'kill',
      do: (ctx) => task(ctx, (ctx.outputs['check'] as {nodeId: string}).nodeId, 'kill', {kind: 'container.kill', ...ctx.params}),
    },
    {kind: 'plan', name: 'killed', plan: killed},
  ],
  result: () => null,
};

async function check(ctx: Ctx<KillParams>): Promise<{output: {nodeId: string}}> {
  const {value: c} = await container(ctx, ctx.params.containerId);
  if (!isRunning(c)) throw new CetusError('conflict', `cannot kill container: ${c.id}: container ${c.id} is not running`);
  return {output: {nodeId: c.nodeId}};
}

async function killed(ctx: Ctx<KillParams>): Promise<{writes: BatchOp[]}> {
  // It may be gone by now: removed by whoever waited for its end.
  const stored = await ctx.moray.peek<Container>(CONTAINERS, ctx.params.containerId);
  return {writes: stored ? observed(ctx, stored, (ctx.outputs['kill'] as TaskOutput).observation) : []};
}
