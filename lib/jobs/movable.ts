/**
 * Which containers may be started on another node, and why others may not: pure. Their files go with the node (all but the image's), so only those move whose policy says that they are to be started
 * anew whatever happened, and which have nothing of the node's own.
 */
import type {Container} from '../schema/container';
import {isRunning} from './steps';

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
export function isWanted(c: Container): boolean {
  return isRunning(c) || (c.status === 'exited' && c.observation.wantsStart === true);
}
