/** `docker commit`: what the image is to say is put together here, by the Engine's rules; the node makes its layer. */
import {CetusError} from '../../base/errors';
import type {Config, HealthConfig} from '../../schema/docker';
import {familiarReference, formatReference, invalidTag, isTag, parseImageName, parseReference} from '../../schema/reference';
import {mustReach} from '../containers/lost';
import {resolveContainer} from '../containers/resolve';
import type {Context} from '../context';
import type {Caller, CommitOptions} from '../verbs';
import {applyChanges} from './changes/changes';

export async function commit(context: Context, caller: Caller, nameOrId: string, options: CommitOptions): Promise<{imageId: string}> {
  if (nameOrId === '') throw new CetusError('invalid', 'invalid name or ID supplied: ""');
  const reference = newReference(options.repository, options.tag);
  const container = await resolveContainer(context, caller.account, nameOrId);
  if (container.status === 'removing') throw new CetusError('conflict', `You cannot commit container ${container.id} which is being removed`);
  await mustReach(context, container);
  const own = container.spec.config;
  const config = inherit(applyChanges(options.config ?? own, options.changes), own);
  try {
    return await context.run(caller, 'image.commit', {
      account: caller.account, containerId: container.id, reference, author: options.author, comment: options.comment, pause: options.pause, config, containerConfig: own,
    });
  } finally {
    context.views.touch(caller.account, container.id);
  }
}

/** The name of an image that is being made; '' for none. */
export function newReference(repository: string, tag: string): string {
  if (repository === '') return '';
  const named = parseReference(repository);
  if (named.digest !== undefined) throw new CetusError('invalid', 'cannot import digest reference');
  if (tag !== '' && !isTag(tag)) throw invalidTag();
  return formatReference(parseImageName(tag === '' ? repository : familiarReference({...named, tag})));
}

/** What the given config leaves open is the container's (the Engine's merge); everything else is the given one's, as it is. */
export function inherit(given: Config, own: Config): Config {
  const config: Config = {...given};
  config.User ||= own.User;
  config.WorkingDir ||= own.WorkingDir;
  config.StopSignal ||= own.StopSignal;
  config.ExposedPorts = joined(own.ExposedPorts, given.ExposedPorts);
  config.Volumes = joined(own.Volumes, given.Volumes);
  config.Labels = {...own.Labels, ...given.Labels};
  const names = new Set((given.Env ?? []).map(nameOf));
  config.Env = [...given.Env ?? [], ...(own.Env ?? []).filter((entry) => !names.has(nameOf(entry)))];
  if (!given.Entrypoint?.length) {
    if (!given.Cmd?.length) config.Cmd = own.Cmd ?? null;
    config.Entrypoint = given.Entrypoint ?? own.Entrypoint ?? null;
  }
  if (own.Healthcheck) config.Healthcheck = healthOf(given.Healthcheck ?? {}, own.Healthcheck);
  return config;
}

function healthOf(given: HealthConfig, own: HealthConfig): HealthConfig {
  return {
    Test: given.Test?.length ? given.Test : own.Test, Interval: given.Interval || own.Interval, Timeout: given.Timeout || own.Timeout,
    StartPeriod: given.StartPeriod || own.StartPeriod, StartInterval: given.StartInterval || own.StartInterval, Retries: given.Retries || own.Retries,
  };
}

const nameOf = (entry: string): string => entry.split('=', 1)[0]!;

function joined(a: Record<string, object> | null | undefined, b: Record<string, object> | null | undefined): Record<string, object> | undefined {
  const all = {...a, ...b};
  return Object.keys(all).length > 0 ? all : undefined;
}
