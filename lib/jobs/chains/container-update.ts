/** container.update: capacity and configuration first, then the node; where the node refuses, both are what they were. */
import type {BatchOp} from '../../moray/moray';
import {refusedByAll} from '../../placement/filters/hardware';
import type {TaskOutput} from '../../schema/agent';
import {targets, type UpdateParams} from '../../schema/chains';
import type {Container, Reservation} from '../../schema/container';
import type {HostConfig, Resources} from '../../schema/docker';
import {hardwareOf} from '../../schema/placement';
import {CetusError} from '../../base/errors';
import type {Chain} from '../../workflow/chain';
import {reserve} from '../reservations';
import type {Ctx, JobServices} from '../services';
import {container, observed, putContainer, task, undoTask} from '../steps';

interface Updated { nodeId: string; hostConfig: HostConfig; reservation: Reservation }

export const update: Chain<UpdateParams, JobServices> = {
  name: 'container.update',
  version: 1,
  target: (params) => targets.container(params.containerId),
  steps: [
    {kind: 'plan', name: 'configure', plan: configure, undo: unconfigure},
    {
      kind: 'act', name: 'tell',
      do: (ctx) => {
        const {containerId, resources, restartPolicy} = ctx.params;
        return task(ctx, before(ctx).nodeId, 'tell', {kind: 'container.update', containerId, resources, restartPolicy});
      },
      undo: async (ctx) => {
        const {nodeId, hostConfig} = before(ctx);
        await undoTask(ctx, nodeId, 'tell', {
          kind: 'container.update', containerId: ctx.params.containerId, resources: formerResources(ctx.params.resources, hostConfig),
          restartPolicy: ctx.params.restartPolicy && (hostConfig.RestartPolicy ?? {Name: 'no'}),
        });
      },
    },
    {
      kind: 'plan', name: 'told',
      plan: async (ctx) => ({writes: observed(ctx, await container(ctx, ctx.params.containerId), (ctx.outputs['tell'] as TaskOutput).observation)}),
    },
  ],
  result: () => null,
};

function before(ctx: Ctx<UpdateParams>): Updated {
  return ctx.outputs['configure'] as Updated;
}

/** What the changed fields were; the Engine's zero where they were not set, so that the node takes the limit away again. */
function formerResources(changed: Resources, former: HostConfig): Resources {
  const zero = (value: unknown): unknown => (typeof value === 'string' ? '' : typeof value === 'number' ? 0 : null);
  return Object.fromEntries(Object.entries(changed).map(([field, value]) => [field, former[field as keyof HostConfig] ?? zero(value)])) as Resources;
}

async function configure(ctx: Ctx<UpdateParams>): Promise<{output: Updated; writes: BatchOp[]}> {
  const {containerId, resources, restartPolicy, reservation} = ctx.params;
  const stored = await container(ctx, containerId);
  const c = stored.value;
  if (c.status === 'removing' || c.status === 'dead') throw new CetusError('conflict', `Cannot update container ${c.id}: container is marked for removal and cannot be "update"`);
  // Only what is changed is looked at, as by the Engine: what was right when it was created may stay.
  const hardware = hardwareOf(resources);
  const refusal = hardware && refusedByAll([(await ctx.services.fleet.node(c.nodeId)).facts], hardware);
  if (refusal) throw refusal;
  const hostConfig: HostConfig = {...c.spec.hostConfig, ...resources, ...(restartPolicy ? {RestartPolicy: restartPolicy} : {})};
  return {output: {nodeId: c.nodeId, hostConfig: c.spec.hostConfig, reservation: c.reservation}, writes: await configured(ctx, stored, hostConfig, reservation)};
}

async function unconfigure(ctx: Ctx<UpdateParams>, output: unknown): Promise<{writes: BatchOp[]}> {
  const {hostConfig, reservation} = output as Updated;
  return {writes: await configured(ctx, await container(ctx, ctx.params.containerId), hostConfig, ctx.params.reservation && reservation)};
}

async function configured(ctx: Ctx<UpdateParams>, stored: Awaited<ReturnType<typeof container>>, hostConfig: HostConfig, reservation: Reservation | null): Promise<BatchOp[]> {
  const c: Container = {...stored.value, spec: {...stored.value.spec, hostConfig}, reservation: reservation ?? stored.value.reservation};
  const row = reservation ? await reserve(ctx, c.nodeId, c.id, {from: stored.value.reservation, to: reservation}) : undefined;
  return [putContainer(stored, c), ...(row ? [row] : [])];
}
