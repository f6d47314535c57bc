/** container.restart: stop where it runs, then hold anew (the same addresses where they are free) and start. */
import {applyObservation} from '../../fleet/observe';
import type {BatchOp} from '../../moray/moray';
import type {TaskOutput} from '../../schema/agent';
import {targets, type StopParams} from '../../schema/chains';
import type {NetworkAttachment} from '../../schema/container';
import type {Chain} from '../../workflow/chain';
import {hold} from '../attach';
import type {Ctx, JobServices} from '../services';
import {container, containerPut, isRunning, letGo, observed, putContainer, task, undoTask} from '../steps';
import {afterFailure, attachedEvents, heldOrRefused, refusedStart, releaseAll, startOnNode, type Began} from '../starting';
import {stopTimeoutMs, type Stopping} from '../stopping';
import {refuseStart} from './container-start';

interface Restarting extends Stopping { running: boolean; had: NetworkAttachment[] }

export const restart: Chain<StopParams, JobServices> = {
  name: 'container.restart',
  version: 1,
  target: (params) => targets.container(params.containerId),
  steps: [
    {kind: 'plan', name: 'check', plan: check},
    {kind: 'act', name: 'stop', do: stopIt, timeoutMs: (params, outputs) => stopTimeoutMs(params, outputs['check'] as Restarting)},
    {kind: 'plan', name: 'hold', plan: holdAgain, undo: (ctx) => releaseAll(ctx, ctx.params.containerId, () => afterFailure(ctx, 'start', checked(ctx).nodeId))},
    {
      kind: 'act', name: 'start', timeoutMs: 120_000,
      do: (ctx) => startOnNode(ctx, 'start'),
      undo: (ctx) => undoTask(ctx, checked(ctx).nodeId, 'start', {kind: 'container.stop', containerId: ctx.params.containerId, timeoutSeconds: 0, signal: null}),
    },
    {kind: 'plan', name: 'restarted', plan: restarted},
  ],
  result: () => null,
};

function checked(ctx: Ctx<StopParams>): Restarting {
  return ctx.outputs['check'] as Restarting;
}

async function check(ctx: Ctx<StopParams>): Promise<{output: Restarting}> {
  const {value: c} = await container(ctx, ctx.params.containerId);
  // The Engine restarts a paused container too: stopping ends the pause.
  if (c.status !== 'paused') refuseStart(c);
  return {output: {nodeId: c.nodeId, ownTimeoutSeconds: c.spec.config.StopTimeout ?? null, running: isRunning(c), had: c.attachments}};
}

async function stopIt(ctx: Ctx<StopParams>): Promise<TaskOutput> {
  if (!checked(ctx).running) return {};
  return task(ctx, checked(ctx).nodeId, 'stop', {kind: 'container.stop', ...ctx.params}, stopTimeoutMs(ctx.params, checked(ctx)));
}

async function holdAgain(ctx: Ctx<StopParams>): Promise<{output: Began; writes: BatchOp[]}> {
  const stored = await container(ctx, ctx.params.containerId);
  const {observation} = ctx.outputs['stop'] as TaskOutput;
  const now = (observation && applyObservation(stored.value, observation)) ?? stored.value;
  const {attachments, publishedPorts, writes, refused} = await heldOrRefused(hold(ctx, now, checked(ctx).had));
  // Whoever applies the exit tells of the lost places; where a report was faster, it has.
  const lost = now === stored.value ? [] : letGo(ctx, stored.value);
  const after = {...now, attachments, publishedPorts};
  return {
    output: {nodeId: now.nodeId, ...(refused ? {refused} : {})},
    writes: [...lost, ...writes, putContainer(stored, refused ? refusedStart(after, refused) : after)],
  };
}

async function restarted(ctx: Ctx<StopParams>): Promise<{writes: BatchOp[]}> {
  const stored = await container(ctx, ctx.params.containerId);
  const {observation} = ctx.outputs['start'] as TaskOutput;
  return {writes: [...observed(ctx, stored, observation), ...attachedEvents(ctx, stored.value, observation), containerPut(ctx, stored.value, 'restart')]};
}
