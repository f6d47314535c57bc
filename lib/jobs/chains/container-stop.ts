/** container.stop: asks the node, records what it answers. What is not running is `notModified`, as the Engine's 304. */
import {CetusError} from '../../base/errors';
import type {BatchOp} from '../../moray/moray';
import {targets, type StopParams} from '../../schema/chains';
import type {TaskOutput} from '../../schema/agent';
import type {Chain} from '../../workflow/chain';
import type {Ctx, JobServices} from '../services';
import {container, isRunning, observed, task} from '../steps';
import {stopTimeoutMs, type Stopping} from '../stopping';

export const stop: Chain<StopParams, JobServices> = {
  name: 'container.stop',
  version: 1,
  target: (params) => targets.container(params.containerId),
  steps: [
    {kind: 'plan', name: 'check', plan: check},
    {
      // Not undone: a container that was stopped stays so.
      kind: 'act', name: 'stop', timeoutMs: (params, outputs) => stopTimeoutMs(params, outputs['check'] as Stopping),
      do: (ctx) => task(ctx, (ctx.outputs['check'] as Stopping).nodeId, 'stop', {kind: 'container.stop', ...ctx.params}, stopTimeoutMs(ctx.params, ctx.outputs['check'] as Stopping)),
    },
    {kind: 'plan', name: 'stopped', plan: stopped},
  ],
  result: () => null,
};

async function check(ctx: Ctx<StopParams>): Promise<{output: Stopping}> {
  const {value: c} = await container(ctx, ctx.params.containerId);
  if (!isRunning(c)) throw new CetusError('notModified', `container ${c.id} is not running`);
  return {output: {nodeId: c.nodeId, ownTimeoutSeconds: c.spec.config.StopTimeout ?? null}};
}

async function stopped(ctx: Ctx<StopParams>): Promise<{writes: BatchOp[]}> {
  return {writes: observed(ctx, await container(ctx, ctx.params.containerId), (ctx.outputs['stop'] as TaskOutput).observation)};
}
