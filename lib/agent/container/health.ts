/** Health checks: the verdict over probes (pure), and the loop that makes them while the container runs. */
import {systemClock, type Clock, formatNs} from '../../base/clock';
import {asCetusError} from '../../base/errors';
import type {HealthProbe, HealthState} from '../../schema/container';
import type {Config, HealthConfig} from '../../schema/docker';

const SECOND = 1_000_000_000;
const MAX_LOG = 5;
const NS_PER_MS = 1e6;

export interface HealthPlan { args: string[]; intervalMs: number; timeoutMs: number; retries: number; startPeriodMs: number; startIntervalMs: number }

/** What to run and when; undefined where nothing is to be checked. Defaults are the Engine's. */
export function healthPlan(config: Config): HealthPlan | undefined {
  const health: HealthConfig | null | undefined = config.Healthcheck;
  const [how, ...rest] = health?.Test ?? [];
  if (!health || how === undefined || how === 'NONE' || how === '') return undefined;
  const shell = config.Shell?.length ? config.Shell : ['/bin/sh', '-c'];
  const ms = (ns: number | undefined, fallback: number): number => (ns ? ns : fallback) / NS_PER_MS;
  return {
    args: how === 'CMD-SHELL' ? [...shell, ...rest] : rest,
    intervalMs: ms(health.Interval, 30 * SECOND), timeoutMs: ms(health.Timeout, 30 * SECOND), retries: health.Retries || 3,
    startPeriodMs: ms(health.StartPeriod, 0), startIntervalMs: ms(health.StartInterval, 5 * SECOND),
  };
}

/** The state after one more probe. `sinceStartMs`: how long the container had run when the probe began. */
export function judge(state: HealthState, probe: HealthProbe, plan: HealthPlan, sinceStartMs: number): HealthState {
  const log = [...state.log, probe].slice(-MAX_LOG);
  if (probe.exitCode === 0) return {status: 'healthy', failingStreak: 0, log};
  // While it starts, and has never been healthy, failures in the start period do not count.
  if (state.status === 'starting' && sinceStartMs < plan.startPeriodMs) return {...state, log};
  const failingStreak = state.failingStreak + 1;
  return {status: failingStreak >= plan.retries ? 'unhealthy' : state.status, failingStreak, log};
}

export type Probe = (args: string[], timeoutMs: number, signal: AbortSignal) => Promise<{exitCode: number; output: string}>;

export interface ProberOptions {
  plan: HealthPlan;
  startedMs: number;
  probe: Probe;
  state(): HealthState;
  result(state: HealthState, changed: boolean): Promise<void>;
  clock?: Clock;
}

/** Probes until the signal aborts. A probe that cannot be made counts as a failed one. */
export async function runProbes(options: ProberOptions, signal: AbortSignal): Promise<void> {
  const {plan} = options;
  const clock = options.clock ?? systemClock;
  while (!signal.aborted) {
    const starting = options.state().status === 'starting' && clock.now() - options.startedMs < plan.startPeriodMs;
    try {
      await clock.sleep(starting ? plan.startIntervalMs : plan.intervalMs, signal);
    } catch {
      return;
    }
    const began = clock.now();
    const start = formatNs(clock.nowNs());
    let outcome: {exitCode: number; output: string};
    try {
      outcome = await options.probe(plan.args, plan.timeoutMs, signal);
    } catch (err) {
      outcome = {exitCode: -1, output: asCetusError(err).shown};
    }
    if (signal.aborted) return;
    const before = options.state();
    const after = judge(before, {start, end: formatNs(clock.nowNs()), ...outcome}, plan, began - options.startedMs);
    await options.result(after, after.status !== before.status);
  }
}
