/** The request's Config over the image's, by the Engine's rules. Pure; throws `invalid` with the Engine's texts. */
import {CetusError} from '../../base/errors';
import type {Config, HealthConfig} from '../../schema/docker';

const MIN_DURATION_NS = 1_000_000;

const invalid = (message: string): CetusError => new CetusError('invalid', message);

export function mergeConfig(given: Config, image: Config): Config {
  for (const entry of given.Env ?? []) if (entry === '') throw invalid('invalid environment variable: ');
  const config: Config = {...given};
  config.User ||= image.User ?? '';
  config.WorkingDir ||= image.WorkingDir ?? '';
  config.StopSignal ||= image.StopSignal;
  config.ExposedPorts = union(image.ExposedPorts, given.ExposedPorts);
  config.Volumes = union(image.Volumes, given.Volumes);
  config.Labels = {...image.Labels, ...given.Labels};
  config.Env = mergeEnv(given.Env ?? [], image.Env ?? []);
  if (!given.Shell?.length && image.Shell?.length) config.Shell = image.Shell;
  if (!given.Entrypoint?.length) {
    if (!given.Cmd?.length) config.Cmd = image.Cmd ?? null;
    // An empty list is a choice ("no entrypoint"), an absent one is not.
    config.Entrypoint = given.Entrypoint ?? image.Entrypoint ?? null;
  }
  // What `docker run --entrypoint ""` sends.
  if (config.Entrypoint?.length === 1 && config.Entrypoint[0] === '') config.Entrypoint = null;
  if (!config.Entrypoint?.length && !config.Cmd?.length) throw invalid('no command specified');
  config.Healthcheck = mergeHealth(given.Healthcheck, image.Healthcheck);
  return config;
}

function union(a: Record<string, object> | null | undefined, b: Record<string, object> | null | undefined): Record<string, object> | undefined {
  const merged = {...a, ...b};
  return Object.keys(merged).length > 0 ? merged : undefined;
}

const nameOf = (entry: string): string => entry.split('=', 1)[0]!;

/** A name without a value takes the image's variable away. */
function mergeEnv(given: string[], image: string[]): string[] {
  const names = new Set(given.map(nameOf));
  return [...given.filter((e) => e.includes('=')), ...image.filter((e) => !names.has(nameOf(e)))];
}

function mergeHealth(given: HealthConfig | null | undefined, image: HealthConfig | null | undefined): HealthConfig | undefined {
  if (!given) return image ?? undefined;
  if (!image) return given;
  const merged: HealthConfig = {...given};
  if (!merged.Test?.length) merged.Test = image.Test;
  merged.Interval ||= image.Interval;
  merged.Timeout ||= image.Timeout;
  merged.StartPeriod ||= image.StartPeriod;
  merged.StartInterval ||= image.StartInterval;
  merged.Retries ||= image.Retries;
  return merged;
}

/** The checks of Config that the Engine makes at create. */
export function checkConfig(config: Config): void {
  for (const entry of config.Env ?? []) if (entry === '' || entry.startsWith('=')) throw invalid(`invalid environment variable: ${entry}`);
  if (config.WorkingDir && !config.WorkingDir.startsWith('/')) throw invalid(`the working directory '${config.WorkingDir}' is invalid, it needs to be an absolute path`);
  if (config.Hostname && !/^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/.test(config.Hostname)) throw invalid(`invalid hostname format: ${config.Hostname}`);
  if (config.StopSignal) checkSignal(config.StopSignal);
  if (config.StopTimeout !== undefined && config.StopTimeout !== null && config.StopTimeout < -1) throw invalid(`invalid stop timeout: ${config.StopTimeout}`);
  const health = config.Healthcheck;
  if (!health) return;
  for (const [name, value] of [['Interval', health.Interval], ['Timeout', health.Timeout], ['StartPeriod', health.StartPeriod], ['StartInterval', health.StartInterval]] as const)
    if (value && value < MIN_DURATION_NS) throw invalid(`${name} in Healthcheck cannot be less than 1ms`);
  if ((health.Retries ?? 0) < 0) throw invalid('Retries in Healthcheck cannot be negative');
  const kind = health.Test?.[0];
  if (kind !== undefined && !['NONE', 'CMD', 'CMD-SHELL', ''].includes(kind)) throw invalid(`Unknown healthcheck type '${kind}' (expected 'CMD')`);
}

const SIGNALS = new Set(('ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV STKFLT STOP SYS TERM TRAP TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ '
  + 'RTMIN RTMAX').split(' '));

export function checkSignal(signal: string): void {
  if (/^-?\d+$/.test(signal)) {
    const number = Number(signal);
    if (number >= 1 && number <= 64) return;
    if (number !== 0) throw invalid(`the linux daemon does not support signal ${number}`);
  } else {
    const name = signal.toUpperCase().replace(/^SIG/, '');
    if (SIGNALS.has(name) || /^RTMIN\+([1-9]|1[0-5])$/.test(name) || /^RTMAX-([1-9]|1[0-4])$/.test(name)) return;
  }
  throw invalid(`invalid signal: ${signal}`);
}
