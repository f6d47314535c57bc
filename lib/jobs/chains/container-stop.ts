/** container.stop: asks the node, records what it answers. What is not running is `notModified`, as the Engine's 304. */
import {CetusError} from '../../base/errors';
import type {BatchOp} from '../../moray/moray';
import {targets, type StopParams} from '../../schema/chains';
import type {TaskOutput} from '../../schema/agent';
import type {Chain} from '../../workflow/chain';
import type {Ctx, JobServices} from '../services';
import {container, isRunning, observed, putContainer, task} from '../steps';
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
      do: async (ctx) => {
        const {nodeId, waits} = ctx.outputs['check'] as Stopping & {waits?: boolean};
        return waits ? {} : task(ctx, nodeId, 'stop', {kind: 'container.stop', ...ctx.params}, stopTimeoutMs(ctx.params, ctx.outputs['check'] as Stopping));
      },
    },
    {kind: 'plan', name: 'stopped', plan: stopped},
  ],
  result: () => null,
};

async function check(ctx: Ctx<StopParams>): Promise<{output: Stopping & {waits?: boolean}}> {
  const {value: c} = await container(ctx, ctx.params.containerId);
  if (!isRunning(c)) throw new CetusError('notModified', `container ${c.id} is not running`);
  // On its way between two nodes: nothing runs that could be stopped, and it must not be started where it arrives.
  return {output: {nodeId: c.nodeId, ownTimeoutSeconds: c.spec.config.StopTimeout ?? null, ...(c.moving ? {waits: true} : {})}};
}

async function stopped(ctx: Ctx<StopParams>): Promise<{writes: BatchOp[]}> {
  const stored = await container(ctx, ctx.params.containerId);
  const {moving} = stored.value;
  if (moving && (ctx.outputs['check'] as {waits?: boolean}).waits)
    return {writes: [putContainer(stored, {...stored.value, status: 'exited', observation: {...stored.value.observation, status: 'exited', stoppedByUser: true}, moving: {...moving, start: false}})]};
  return {writes: observed(ctx, stored, (ctx.outputs['stop'] as TaskOutput).observation)};
}
