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
import {mayLeave} from '../marks';
import {reserve} from '../reservations';
import type {Ctx, JobServices} from '../services';
import {container, observed, putContainer, task, undoTask} from '../steps';

/** `mark`: what the node is told of its moving, where that changes; `marked`: what it was. */
interface Updated { nodeId: string; hostConfig: HostConfig; reservation: Reservation; mark?: boolean; marked?: boolean }

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
        return task(ctx, before(ctx).nodeId, 'tell', {kind: 'container.update', containerId, resources, restartPolicy, ...marking(before(ctx).mark)});
      },
      undo: async (ctx) => {
        const {nodeId, hostConfig} = before(ctx);
        await undoTask(ctx, nodeId, 'tell', {
          kind: 'container.update', containerId: ctx.params.containerId, resources: formerResources(ctx.params.resources, hostConfig),
          restartPolicy: ctx.params.restartPolicy && (hostConfig.RestartPolicy ?? {Name: 'no'}), ...marking(before(ctx).marked),
        });
      },
    },
    {
      kind: 'plan', name: 'told',
      plan: told,
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
  const mark = await mayLeave(ctx, {...c, spec: {...c.spec, hostConfig}});
  const marked = c.reschedule ?? false;
  // The store says less than the node at any time: it forgets before the node is told, and hears after it.
  const cleared = mark ? stored : {...stored, value: unmarked(c)};
  return {
    output: {nodeId: c.nodeId, hostConfig: c.spec.hostConfig, reservation: c.reservation, ...(mark === marked ? {} : {mark, marked})}, writes: await configured(ctx, cleared, hostConfig, reservation),
  };
}

async function told(ctx: Ctx<UpdateParams>): Promise<{writes: BatchOp[]}> {
  const stored = await container(ctx, ctx.params.containerId);
  const writes = observed(ctx, stored, (ctx.outputs['tell'] as TaskOutput).observation);
  if (!before(ctx).mark) return {writes};
  const marked = {...((writes[0] as {value?: Container} | undefined)?.value ?? stored.value), reschedule: true};
  return {writes: [putContainer(stored, marked), ...writes.slice(1)]};
}

const marking = (reschedule: boolean | undefined): {reschedule?: boolean} => (reschedule === undefined ? {} : {reschedule});

function unmarked({reschedule: _mark, ...c}: Container): Container {
  return c;
}

async function unconfigure(ctx: Ctx<UpdateParams>, output: unknown): Promise<{writes: BatchOp[]}> {
  const {hostConfig, reservation, marked} = output as Updated;
  const stored = await container(ctx, ctx.params.containerId);
  const was = marked ? {...stored, value: {...stored.value, reschedule: true}} : stored;
  return {writes: await configured(ctx, was, hostConfig, ctx.params.reservation && reservation)};
}

async function configured(ctx: Ctx<UpdateParams>, stored: Awaited<ReturnType<typeof container>>, hostConfig: HostConfig, reservation: Reservation | null): Promise<BatchOp[]> {
  const c: Container = {...stored.value, spec: {...stored.value.spec, hostConfig}, reservation: reservation ?? stored.value.reservation};
  const row = reservation ? await reserve(ctx, c.nodeId, c.id, {from: stored.value.reservation, to: reservation}) : undefined;
  return [putContainer(stored, c), ...(row ? [row] : [])];
}
