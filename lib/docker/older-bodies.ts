/**
 * What an older API did not have, as data: a body that comes in a client's version is made one of the newest, as the Engine makes it. What the
 * version did not know is left out, as its daemon would have passed over it; where a default has changed since, the old one is put in.
 * Pure: bodies are changed in place, before anybody else has seen them.
 */
import type {CreateContainerBody, ExecConfig, HostConfig, Mount} from '../schema/docker';
import type {NetworkCreateBody} from '../datacenter/verbs';

/** `until`: the first version that has it. */
interface Change<T> { until: number; what: string; apply: (body: T) => void }

const host = (change: (host: HostConfig) => void) => (body: CreateContainerBody): void => change(body.HostConfig ??= {});
const mounts = (change: (mount: Mount) => void) => (body: CreateContainerBody): void => body.HostConfig?.Mounts?.forEach(change);

export const CREATE_CHANGES: readonly Change<CreateContainerBody>[] = [
  {until: 40, what: 'IpcMode is shareable where nothing is said', apply: host((h) => { h.IpcMode ||= 'shareable'; })},
  {until: 40, what: 'BindOptions.NonRecursive', apply: mounts((m) => { delete m.BindOptions?.NonRecursive; })},
  {until: 42, what: 'BindOptions.CreateMountpoint', apply: mounts((m) => { delete m.BindOptions?.CreateMountpoint; })},
  {until: 43, what: 'Annotations', apply: host((h) => { delete h.Annotations; })},
  {until: 44, what: 'Healthcheck.StartInterval', apply: (body) => { delete body.Healthcheck?.StartInterval; }},
  {until: 44, what: 'BindOptions.ReadOnlyNonRecursive and ReadOnlyForceRecursive', apply: mounts((m) => { delete m.BindOptions?.ReadOnlyNonRecursive; delete m.BindOptions?.ReadOnlyForceRecursive; })},
  {until: 44, what: 'MacAddress of an endpoint', apply: (body) => { for (const settings of Object.values(body.NetworkingConfig?.EndpointsConfig ?? {})) delete settings?.MacAddress; }},
  {until: 45, what: 'VolumeOptions.Subpath', apply: mounts((m) => { delete m.VolumeOptions?.Subpath; })},
  {until: 46, what: 'TmpfsOptions.Options', apply: mounts((m) => { delete m.TmpfsOptions?.Options; })},
];
export const EXEC_CHANGES: readonly Change<ExecConfig>[] = [
  {until: 42, what: 'ConsoleSize', apply: (body) => { delete body.ConsoleSize; }},
];
export const NETWORK_CHANGES: readonly Change<NetworkCreateBody>[] = [
  {until: 47, what: 'EnableIPv4', apply: (body) => { delete body.EnableIPv4; }},
];

export function fromOlder<T>(body: T, changes: readonly Change<T>[], speaks: (minor: number) => boolean): T {
  for (const {until, apply} of changes) if (!speaks(until)) apply(body);
  return body;
}
