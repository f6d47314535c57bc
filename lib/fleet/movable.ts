/**
 * Which containers may be started on another node, and why others may not: pure. Their files go with the node (all but the image's), so only those move whose policy says that they are to be started
 * anew whatever happened, and which have nothing of the node's own.
 */
import type {Container} from '../schema/container';

/** `never` keeps a container on its node, and running when the node loses its lease. */
export const STAY_LABEL = 'cetus.reschedule';

/** What keeps it on its node, in words; undefined: it may move. */
export function pinnedBy({spec, labels, links, autoRemove}: Pick<Container, 'spec' | 'labels' | 'links' | 'autoRemove'>): string | undefined {
  const {hostConfig, mounts, networkMode} = spec;
  const policy = hostConfig.RestartPolicy?.Name ?? '';
  if (policy !== 'always' && policy !== 'unless-stopped') return `its restart policy is ${policy === '' ? 'no' : policy}, not always or unless-stopped`;
  if (autoRemove) return 'it is removed when it ends';
  if (labels[STAY_LABEL] === 'never') return `its label ${STAY_LABEL} says never`;
  for (const mount of mounts) {
    if (mount.type === 'volume') return `it uses the volume ${mount.name}, which is on its node`;
    if (mount.type === 'bind' && !mount.dockerSocket) return `it mounts ${mount.source} of its node`;
  }
  for (const mode of [networkMode, hostConfig.IpcMode, hostConfig.PidMode])
    if (mode?.startsWith('container:')) return `it shares namespaces of container ${mode.slice('container:'.length, 'container:'.length + 12)}, which is on its node`;
  if (links?.length && (hostConfig.NetworkMode ?? 'default') === 'bridge') return 'it has links on the bridge of its node';
  return undefined;
}

/** It is to run, as far as is known: what moves is started. */
export function isWanted(c: Pick<Container, 'status' | 'observation'>): boolean {
  return c.status === 'running' || c.status === 'paused' || c.status === 'restarting' || (c.status === 'exited' && c.observation.wantsStart === true);
}

/** It is started elsewhere once its node is fenced, and is on nobody's way there yet. */
export function goesElsewhere(c: Container): boolean {
  return c.reschedule === true && !c.moving && isWanted(c);
}

/** What keeps it on its node in words of its own, or the node's ignorance; undefined: nothing. */
export function heldBy(c: Container): string | undefined {
  return pinnedBy(c) ?? (isWanted(c) ? c.status === 'paused' ? 'it is paused' : c.reschedule ? undefined : 'its node has not been told that it may go elsewhere' : 'it does not run');
}

export interface Staying { id: string; name: string; reason: string }

/** What a drain of this node would leave there, and why: for operators. */
export function staying(containers: readonly Container[]): Staying[] {
  return containers.flatMap((c) => {
    const reason = heldBy(c);
    return reason === undefined ? [] : [{id: c.id, name: c.name, reason}];
  });
}
