/**
 * container.start: addresses and ports are held first, then the node starts it with them. A start that fails leaves the container with the
 * exit code and message that the node reports, and without addresses and ports.
 */
import {CetusError} from '../../base/errors';
import {applyObservation} from '../../fleet/observe';
import type {BatchOp} from '../../moray/moray';
import {targets, type StartParams} from '../../schema/chains';
import type {Container} from '../../schema/container';
import type {Chain} from '../../workflow/chain';
import {hold} from '../attach';
import type {Ctx, JobServices} from '../services';
import {container, isRunning, observed, putContainer, undoTask} from '../steps';
import {afterFailure, attachedEvents, heldOrRefused, refusedStart, releaseAll, startOnNode, type Began} from '../starting';

export const start: Chain<StartParams, JobServices> = {
  name: 'container.start',
  version: 1,
  target: (params) => targets.container(params.containerId),
  steps: [
    {kind: 'plan', name: 'hold', plan: holdPlaces, undo: (ctx, output) => releaseAll(ctx, ctx.params.containerId, () => afterFailure(ctx, 'start', (output as Began).nodeId))},
    {
      kind: 'act', name: 'start', timeoutMs: 120_000,
      do: (ctx) => startOnNode(ctx, 'start'),
      undo: (ctx) => undoTask(ctx, (ctx.outputs['hold'] as Began).nodeId, 'start', {kind: 'container.stop', containerId: ctx.params.containerId, timeoutSeconds: 0, signal: null}),
    },
    {kind: 'plan', name: 'started', plan: started},
  ],
  result: () => null,
};

export function refuseStart(c: Container): void {
  if (c.status === 'removing' || c.status === 'dead') throw new CetusError('conflict', 'container is marked for removal and cannot be started');
  if (c.moving) throw new CetusError('conflict', `container ${c.id} is on its way to another node, where it is started`);
  if (c.status === 'paused') throw new CetusError('conflict', 'cannot start a paused container, try unpause instead');
}

async function holdPlaces(ctx: Ctx<StartParams>): Promise<{output: Began; writes: BatchOp[]}> {
  const stored = await container(ctx, ctx.params.containerId);
  const c = stored.value;
  refuseStart(c);
  if (isRunning(c)) throw new CetusError('notModified', `container ${c.id} is running already`);
  const {attachments, publishedPorts, writes, refused} = await heldOrRefused(hold(ctx, c));
  if (refused) return {output: {nodeId: c.nodeId, refused}, writes: [putContainer(stored, refusedStart(c, refused))]};
  return {
    output: {nodeId: c.nodeId},
    writes: [...writes, ...(attachments.length || publishedPorts.length ? [putContainer(stored, {...c, attachments, publishedPorts})] : [])],
  };
}

async function started(ctx: Ctx<StartParams>): Promise<{writes: BatchOp[]}> {
  const stored = await container(ctx, ctx.params.containerId);
  const {observation} = ctx.outputs['start'] as {observation?: Parameters<typeof applyObservation>[1]};
  return {writes: [...observed(ctx, stored, observation), ...attachedEvents(ctx, stored.value, observation)]};
}
