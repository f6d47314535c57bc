/** How long a stop may take: the asked grace, else the container's own, else the Engine's 10 s, and time for the node to kill and tell. */
export interface Stopping { nodeId: string; ownTimeoutSeconds: number | null }

const DEFAULT_GRACE_SECONDS = 10;
const KILL_AND_TELL_MS = 30_000;
// "Wait for ever" within what a timer can hold; the caller's own patience ends earlier, the job then goes on.
const FOREVER_MS = 24 * 3600_000;

export function stopTimeoutMs(params: {timeoutSeconds: number | null}, stopping: Pick<Stopping, 'ownTimeoutSeconds'> | undefined): number {
  const seconds = params.timeoutSeconds ?? stopping?.ownTimeoutSeconds ?? DEFAULT_GRACE_SECONDS;
  return seconds < 0 ? FOREVER_MS : Math.min(seconds * 1000 + KILL_AND_TELL_MS, FOREVER_MS);
}
