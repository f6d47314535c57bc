/**
 * `--log-opt tag`: a template of Go's, of which its fields are understood. What is more than fields and text is refused by name, and a field that
 * is none in the Engine's words. Pure.
 */
import {CetusError} from '../../base/errors';
import type {ContainerSpec} from '../../schema/container';

/** What of a container a log's options may speak of. */
export type Tagged = Pick<ContainerSpec, 'id' | 'name' | 'image' | 'config'>;
const SHORT = 12;

const FIELDS: Record<string, (c: Tagged, hostname: string) => string> = {
  ID: (c) => c.id.slice(0, SHORT),
  FullID: (c) => c.id,
  Name: (c) => c.name,
  ImageName: (c) => c.image.reference,
  // As the Engine cuts it: with the algorithm.
  ImageID: (c) => c.image.id.slice(0, SHORT),
  ImageFullID: (c) => c.image.id,
  DaemonName: () => 'docker',
  Hostname: (_c, hostname) => hostname,
  Command: (c) => [...(c.config.Entrypoint ?? []), ...(c.config.Cmd ?? [])].join(' '),
  ContainerID: (c) => c.id,
  ContainerName: (c) => `/${c.name}`,
  ContainerImageID: (c) => c.image.id,
  ContainerImageName: (c) => c.image.reference,
};

export function tagOf(template: string, container: Tagged, hostname: string): string {
  return template.replace(/\{\{(- )?\s*(.*?)\s*( -)?\}\}/gs, (whole: string, _left, action: string, _right, at: number) => {
    const name = /^\.(\w+)$/.exec(action)?.[1];
    if (name === undefined) throw new CetusError('unsupported', `log opt 'tag': ${whole} is not supported, only fields are ({{.Name}})`);
    const field = Object.hasOwn(FIELDS, name) ? FIELDS[name] : undefined;
    if (!field) throw new CetusError('invalid', `failed to initialize logging driver: template: log-tag:1:${at + 2}: executing "log-tag" at <.${name}>: can't evaluate field ${name} in type *logger.Info`);
    return field(container, hostname);
  });
}
