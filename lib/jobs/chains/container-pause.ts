/** container.pause and container.unpause: the same chain in two directions. */
import {CetusError} from '../../base/errors';
import type {TaskOutput} from '../../schema/agent';
import {targets, type PauseParams} from '../../schema/chains';
import type {Container} from '../../schema/container';
import type {Chain} from '../../workflow/chain';
import type {JobServices} from '../services';
import {container, observed, task, undoTask} from '../steps';

type Turn = 'pause' | 'unpause';

function refuse(turn: Turn, c: Container): void {
  if (turn === 'unpause') {
    if (c.status !== 'paused') throw new CetusError('conflict', `Container ${c.id} is not paused`);
    return;
  }
  if (c.status === 'paused') throw new CetusError('conflict', `container ${c.id} is already paused`);
  if (c.status === 'restarting') throw new CetusError('conflict', `Container ${c.id} is restarting, wait until the container is running`);
  if (c.status !== 'running') throw new CetusError('conflict', `container ${c.id} is not running`);
}

function chain(turn: Turn): Chain<PauseParams, JobServices> {
  const back: Turn = turn === 'pause' ? 'unpause' : 'pause';
  const nodeId = (outputs: Readonly<Record<string, unknown>>): string => (outputs['check'] as {nodeId: string}).nodeId;
  return {
    name: `container.${turn}`,
    version: 1,
    target: (params) => targets.container(params.containerId),
    steps: [
      {
        kind: 'plan', name: 'check',
        plan: async (ctx) => {
          const {value: c} = await container(ctx, ctx.params.containerId);
          refuse(turn, c);
          return {output: {nodeId: c.nodeId}};
        },
      },
      {
        kind: 'act', name: turn,
        do: (ctx) => task(ctx, nodeId(ctx.outputs), turn, {kind: `container.${turn}`, containerId: ctx.params.containerId}),
        undo: async (ctx) => {
          // Only what was turned is turned back: a container that has exited meanwhile is neither.
          const {status} = await (await ctx.services.fleet.agent(nodeId(ctx.outputs))).observe(ctx.params.containerId);
          if (status === (turn === 'pause' ? 'paused' : 'running'))
            await undoTask(ctx, nodeId(ctx.outputs), turn, {kind: `container.${back}`, containerId: ctx.params.containerId});
        },
      },
      {
        kind: 'plan', name: 'turned',
        plan: async (ctx) => ({writes: observed(ctx, await container(ctx, ctx.params.containerId), (ctx.outputs[turn] as TaskOutput).observation)}),
      },
    ],
    result: () => null,
  };
}

export const pause = chain('pause');
export const unpause = chain('unpause');
