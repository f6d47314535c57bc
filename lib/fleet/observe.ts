/**
 * What an agent's observation makes of a stored container. Pure; called by the report path here and by the chains in lib/jobs, so that a
 * task's answer and a report of the same transition cannot disagree: the higher generation wins, whichever arrives first.
 */
import {eq} from '../moray/filter';
import type {BatchOp} from '../moray/moray';
import {BUCKETS} from '../schema/buckets';
import type {Container, ContainerObservation, ContainerStatus} from '../schema/container';

/** Statuses of the control plane's own; an agent's observation never takes a container out of them. */
const OURS: ReadonlySet<ContainerStatus> = new Set(['removing', 'dead']);

/** Nothing of the container runs and nothing is about to: it holds no address and no port. */
export function holdsNothing(observation: ContainerObservation): boolean {
  return observation.status === 'exited' || observation.status === 'created';
}

/**
 * The container lets go of its addresses and ports with this observation. Not where a node that was rebooted wants one back that had let
 * go before: what is held by now belongs to a start that is under way. Nor while it moves: it keeps its addresses.
 */
export function letsGo(container: Container, observation: ContainerObservation): boolean {
  return holdsNothing(observation) && !container.moving && !(observation.wantsStart && holdsNothing(container.observation));
}

/**
 * The container after the observation, or undefined where the observation is not newer than what is known. Where it
 * `letsGo`, attachments and published ports are emptied: write `releaseLeases` in the same batch.
 */
export function applyObservation(container: Container, observation: ContainerObservation): Container | undefined {
  if (observation.containerId !== container.id || observation.generation <= container.observation.generation) return undefined;
  return {
    ...container,
    observation,
    status: OURS.has(container.status) ? container.status : observation.status,
    ...(letsGo(container, observation) ? {attachments: [], publishedPorts: []} : {}),
  };
}

/** Deletes whatever addresses and ports the container holds, also those that a half-done start took and never wrote into the container. */
export function releaseLeases(containerId: string): BatchOp[] {
  const filter = eq('containerId', containerId);
  return [
    {op: 'deleteMany', bucket: BUCKETS.addresses.name, filter},
    {op: 'deleteMany', bucket: BUCKETS.ports.name, filter},
  ];
}
