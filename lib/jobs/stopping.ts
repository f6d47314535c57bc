/** How long a stop may take: the asked grace, else the container's own, else the Engine's 10 s, and time for the node to kill and tell. */
import {graceMsOf, MAX_GRACE_MS} from '../schema/chains';

export interface Stopping { nodeId: string; ownTimeoutSeconds: number | null }

const KILL_AND_TELL_MS = 30_000;

export function stopTimeoutMs(params: {timeoutSeconds: number | null}, stopping: Pick<Stopping, 'ownTimeoutSeconds'> | undefined): number {
  return Math.min(graceMsOf(params.timeoutSeconds, stopping?.ownTimeoutSeconds) + KILL_AND_TELL_MS, MAX_GRACE_MS);
}
