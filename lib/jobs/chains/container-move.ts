/**
 * container.move: from a node that is being drained, in order: a place is looked for and its image brought there; then the container is stopped with its own timeout and removed, and started elsewhere as evacuate does.
 * Its addresses stay held all the time (`moving`). One that could not leave runs on where it is, or is started there again.
 */
import {CetusError, isCetusError} from '../../base/errors';
import {formatNs} from '../../base/clock';
import {applyObservation} from '../../fleet/observe';
import type {BatchOp} from '../../moray/moray';
import {targets, type MoveParams} from '../../schema/chains';
import type {Container, ContainerObservation} from '../../schema/container';
import type {Chain} from '../../workflow/chain';
import {holdOnNode} from '../image-fetch';
import {isWanted, pinnedBy} from '../../fleet/movable';
import {movedResult, placeAnew, placementOf, runThere, storedNode, taskOrFenced} from '../moving';
import type {Ctx, JobServices} from '../services';
import {container, CONTAINERS, letGo, putContainer} from '../steps';
import {stopTimeoutMs, type Stopping} from '../stopping';
import {observeOn} from '../whereabouts';

type Moving = Ctx<MoveParams>;

export const move: Chain<MoveParams, JobServices> = {
  name: 'container.move',
  version: 1,
  target: (params) => targets.container(params.containerId),
  steps: [
    {kind: 'plan', name: 'check', plan: check, undo: stay},
    {
      // What it has stopped, `stay` starts again.
      kind: 'act', name: 'leave', do: leave, undo: async () => undefined,
      timeoutMs: (_params, outputs) => 600_000 + stopTimeoutMs({timeoutSeconds: null}, outputs['check'] as Stopping),
    },
    placeAnew(async () => []),
    ...runThere,
  ],
  result: movedResult,
};

async function check(ctx: Moving): Promise<{output: Stopping; writes: BatchOp[]}> {
  const {containerId, from} = ctx.params;
  const stored = await container(ctx, containerId);
  const c = stored.value;
  if (c.nodeId !== from || (c.moving && !c.moving.leaving)) throw new CetusError('conflict', `container ${containerId} is not on node ${from} any more`);
  const output = {nodeId: from, ownTimeoutSeconds: c.spec.config.StopTimeout ?? null};
  // One that has begun to leave is finished, whatever became of the drain.
  if (c.moving) return {output, writes: []};
  const node = await storedNode(ctx, from);
  if (node.value.availability !== 'draining') throw new CetusError('conflict', `node ${node.value.name} is ${node.value.availability}, not draining`);
  const pinned = pinnedBy(c);
  if (pinned !== undefined || !c.reschedule) throw new CetusError('conflict', `container ${containerId} stays: ${pinned ?? 'its node has not been told that it may go elsewhere'}`);
  if (!isWanted(c) || c.status === 'paused') throw new CetusError('conflict', `container ${containerId} is ${c.status}: it is not moved`);
  // Nobody may be told that it can move before somebody can take it.
  ctx.services.placement.place(await placementOf(ctx, c));
  return {output, writes: [putContainer(stored, {...c, moving: {from, since: formatNs(ctx.services.clock.nowNs()), start: true, leaving: true}})]};
}

async function leave(ctx: Moving): Promise<{observation?: ContainerObservation}> {
  const {containerId, from} = ctx.params;
  const {value: c} = await container(ctx, containerId);
  // While it still runs: the image is most of what a start elsewhere may have to wait for.
  const {nodeId, node} = ctx.services.placement.place(await placementOf(ctx, c));
  await holdOnNode(ctx, nodeId, {...c, node}, undefined);
  const stopped = await taskOrFenced(ctx, from, 'leave.stop', {kind: 'container.stop', containerId, timeoutSeconds: null, signal: null}, stopTimeoutMs({timeoutSeconds: null}, ctx.outputs['check'] as Stopping))
    .catch((err: unknown) => {
      // A try before this one has removed it.
      if (!isCetusError(err, 'notFound')) throw err;
      return undefined;
    });
  await taskOrFenced(ctx, from, 'leave.remove', {kind: 'container.remove', containerId, force: true});
  return stopped?.observation ? {observation: stopped.observation} : {};
}

/** Undo of all that came before `place`; behind it there is nothing to stay at. */
async function stay(ctx: Moving): Promise<{writes: BatchOp[]}> {
  const stored = await ctx.moray.peek<Container>(CONTAINERS, ctx.params.containerId);
  if (!stored?.value.moving?.leaving) return {writes: []};
  const {moving, ...c} = stored.value;
  const {leaving: _left, ...gone} = moving;
  const seen = await observeOn(ctx, ctx.params.from, c.id);
  switch (seen.kind) {
    // Nothing of it is anywhere: the evacuator finds it a place.
    case 'absent': return {writes: [putContainer(stored, {...c, moving: gone})]};
    // Whether it runs nobody can say; the evacuator comes back to it.
    case 'unknown': return {writes: []};
    case 'present': {
      const now = applyObservation(c, seen.observation) ?? c;
      if (now.observation.status !== 'exited') return {writes: [putContainer(stored, now)]};
      return {
        writes: [
          putContainer(stored, {...now, attachments: [], publishedPorts: [], observation: {...now.observation, wantsStart: true}}), ...letGo(ctx, c),
        ],
      };
    }
  }
}
