/** What start and restart share: the order to the node, what is true after a failure, and the events of a start that agents do not make. */
import {asCetusError, fromWire, isCetusError, type ErrorKind, type WireError} from '../base/errors';
import {nsOf} from '../fleet/events';
import {applyObservation} from '../fleet/observe';
import type {BatchOp} from '../moray/moray';
import {nodeNetwork, type TaskOutput} from '../schema/agent';
import type {Container, ContainerObservation} from '../schema/container';
import type {Network} from '../schema/objects';
import type {Held} from './attach';
import {resolveLinks} from './links';
import {nodePorts, refusedPorts} from './ports';
import type {Ctx} from './services';
import {container, CONTAINERS, eventPut, letGo, NETWORKS, putContainer, task} from './steps';

export interface Began { nodeId: string; refused?: WireError }

const START_DEADLINE_MS = 110_000;
/** The Engine's code of a start that failed before there was a process. */
const NEVER_STARTED = 128;
/** They say something of the store or of the job, nothing of the container. */
const PASSING: ReadonlySet<ErrorKind> = new Set(['etagConflict', 'unavailable', 'timeout', 'canceled']);

/**
 * `places`, or why the container cannot have them. That is an outcome of the start which the container shows (`refusedStart`), so it has to be
 * committed: a plan that throws commits nothing. The step behind fails with it.
 */
export async function heldOrRefused(places: Promise<Held>): Promise<Held & {refused?: WireError}> {
  try {
    return await places;
  } catch (err) {
    const error = asCetusError(err);
    if (PASSING.has(error.kind)) throw err;
    return {attachments: [], publishedPorts: [], writes: [], refused: error.toWire()};
  }
}

/** No new generation: the node knows nothing of it, and what it tells next replaces this. An exit code that is there stays, as in the Engine. */
export function refusedStart(c: Container, {message, shown = message}: WireError): Container {
  return {...c, observation: {...c.observation, exitCode: c.observation.exitCode || NEVER_STARTED, error: shown}};
}

/** The container's places are in the store by now: committed with the intent of this very act. */
export async function startOnNode(ctx: Ctx<{containerId: string}>, step: string): Promise<TaskOutput> {
  const {refused} = ctx.outputs['hold'] as Began;
  if (refused) throw fromWire(refused);
  return startAt(ctx, (await container(ctx, ctx.params.containerId)).value, step);
}

/** On the node that it is assigned to, with the places that it has. */
export async function startAt(ctx: Ctx<unknown>, c: Container, step: string): Promise<TaskOutput> {
  const networks = (await Promise.all(c.attachments.map(async (a) => (await ctx.moray.get<Network>(NETWORKS, a.networkId)).value))).map(nodeNetwork);
  // Before its process runs: the first name that it asks for may be of a container elsewhere.
  await ctx.services.fleet.tables?.prepare(c.nodeId, networks);
  const links = await resolveLinks(ctx, c);
  return task(ctx, c.nodeId, step, {
    kind: 'container.start', containerId: c.id, networks, attachments: c.attachments, ports: nodePorts(c.publishedPorts), ...(links.length ? {links} : {}),
    // Once more, for a node that lost its disk's last writes.
    ...(c.reschedule ? {reschedule: true} : {}),
  }, START_DEADLINE_MS);
}

/** What the node says now; else what it said with its refusal; else nothing is known and a report will tell. */
export async function afterFailure(ctx: Ctx<unknown>, step: string, nodeId: string): Promise<ContainerObservation | undefined> {
  const said = ctx.job.steps.find((s) => s.step === step)?.error?.info?.['observation'] ?? ctx.job.error?.info?.['observation'];
  const {containerId} = ctx.params as {containerId: string};
  try {
    return await (await ctx.services.fleet.agent(nodeId)).observe(containerId);
  } catch (err) {
    if (!isCetusError(err)) throw err;
    return said as ContainerObservation | undefined;
  }
}

/** Undo of holding: whatever the start came to, nothing runs now, so nothing is held. */
export async function releaseAll(ctx: Ctx<unknown>, containerId: string, look: () => Promise<ContainerObservation | undefined>): Promise<{writes: BatchOp[]}> {
  const stored = await ctx.moray.peek<Container>(CONTAINERS, containerId);
  if (!stored) return {writes: []};
  const refused = ctx.job.steps.map((s) => s.error?.info?.['port']).find((port) => typeof port === 'string');
  if (refused) ctx.services.recent.give(refusedPorts(stored.value.nodeId), refused as string, 'a foreign program');
  const observation = await look();
  const after = (observation && applyObservation(stored.value, observation)) ?? stored.value;
  return {writes: [putContainer(stored, {...after, attachments: [], publishedPorts: []}), ...letGo(ctx, {...stored.value, attachments: []})]};
}

/** From what the container holds as of this plan; an exit that was faster has let go of it and told so. */
export function attachedEvents(ctx: Ctx<unknown>, c: Container, observation: ContainerObservation | undefined): BatchOp[] {
  // Before the volumes' mounts, which are told to be before the start.
  const startedNs = observation ? nsOf(observation.startedAt) : 0n;
  const fromNs = (startedNs || ctx.services.clock.nowNs()) - BigInt(c.attachments.length + c.spec.mounts.length + 1);
  return c.attachments.map((a, n) => eventPut(ctx, c.account, 'network', 'connect', a.networkId, {container: c.id, name: a.networkName, type: 'bridge'}, fromNs + BigInt(n)));
}
