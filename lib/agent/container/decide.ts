/**
 * The whole logic of a container on a node, pure: what is known and what happened in, the next record and the actions out. The unit
 * (unit.ts) saves the record, queues the reports and then performs the actions, in this order.
 *
 * Semantics are the Engine's, from its public behaviour: restart policies with a back-off of 100 ms doubling to a minute and reset by ten
 * seconds of running; a container that a person stopped is not restarted; a signal that is not the container's stop signal leaves the policy on.
 */
import {CetusError, unreachable} from '../../base/errors';
import type {Report} from '../../schema/agent';
import type {HealthState} from '../../schema/container';
import type {RestartPolicy} from '../../schema/docker';
import type {TaskStatus} from '../runtime/runtime';
import type {ContainerRecord, Launch} from './record';
import {SIGKILL, SIGTERM} from './signals';

export const FIRST_BACKOFF_MS = 100;
export const MAX_BACKOFF_MS = 60_000;
export const BACKOFF_RESET_MS = 10_000;
/** What the Engine shows for a container whose end nobody saw. */
export const UNSEEN_EXIT_CODE = 255;
export const DEFAULT_STOP_SECONDS = 10;
/** A killed process that does not end within this hangs in the kernel. */
export const KILL_WAIT_MS = 30_000;

export interface ContainerView {
  record: ContainerRecord;
  name: string;
  policy: RestartPolicy;
  /** Config.StopSignal as a number; undefined where the container names none. */
  stopSignal: number | undefined;
  stopTimeoutSeconds: number | undefined;
  hasHealthcheck: boolean;
  bootId: string;
}

export type ContainerEvent =
  | {kind: 'start'; task: string; launch: Launch}
  | {kind: 'started'; pid: number; at: string}
  | {kind: 'startFailed'; error: string; exitCode: number; at: string}
  | {kind: 'stop'; task: string; signal: number | undefined; timeoutSeconds: number | null}
  /** The stop has led to an exit: only now the Engine says `stop`. */
  | {kind: 'stopped'}
  | {kind: 'stopTimedOut'}
  | {kind: 'kill'; task: string; signal: number}
  | {kind: 'pause'; task: string}
  | {kind: 'paused'}
  | {kind: 'unpause'; task: string}
  | {kind: 'resumed'}
  | {kind: 'updated'; task: string}
  | {kind: 'exit'; exitCode: number; at: string; ranForMs: number}
  | {kind: 'backoffElapsed'}
  | {kind: 'oom'}
  | {kind: 'health'; health: HealthState; changed: boolean}
  | {kind: 'remove'; force: boolean}
  /** At the agent's start, and when the runtime came back: what really runs. Its output has been taken up already. */
  | {kind: 'found'; task: {status: TaskStatus; pid: number; exitCode: number; exitedAt: string}; at: string; ranForMs: number};

export type ReportBody = {action: Extract<Report, {kind: 'container'}>['action']; attributes: Record<string, string>};

export type ContainerAction =
  | {kind: 'launch'; launch: Launch}
  | {kind: 'signal'; signal: number}
  /** Wait for the exit; after `withinMs` (Infinity = for ever) comes the event `stopTimedOut`, or an error where nothing stronger is left. */
  | {kind: 'awaitExit'; withinMs: number; then: 'stopTimedOut' | 'fail'}
  | {kind: 'pause'}
  | {kind: 'resume'}
  | {kind: 'restartAfter'; ms: number}
  | {kind: 'cancelRestart'}
  | {kind: 'probes'; on: boolean}
  /** Takes the ended task away; the sandbox stays where a restart follows. */
  | {kind: 'cleanUp'; keepSandbox: boolean}
  | {kind: 'erase'}
  | {kind: 'refuse'; error: CetusError};

export interface Decision { record: ContainerRecord; reports: ReportBody[]; actions: ContainerAction[] }

export function decide(view: ContainerView, event: ContainerEvent): Decision {
  switch (event.kind) {
    case 'start': return start(view, event);
    case 'started': return started(view, event);
    case 'startFailed': return startFailed(view, event);
    case 'stop': return stop(view, event);
    case 'stopped': return to(view, {}, [{action: 'stop', attributes: {}}]);
    case 'stopTimedOut': return alive(view) ? to(view, {}, [killReport(SIGKILL)], [{kind: 'signal', signal: SIGKILL}, ...thaw(view), {kind: 'awaitExit', withinMs: KILL_WAIT_MS, then: 'fail'}]) : same(view);
    case 'kill': return kill(view, event);
    case 'pause': return pause(view, event);
    case 'paused': return view.record.observation.status === 'running' ? to(view, {status: 'paused'}, [{action: 'pause', attributes: {}}]) : same(view);
    case 'unpause': return unpause(view, event);
    case 'resumed': return view.record.observation.status === 'paused' ? to(view, {status: 'running'}, [{action: 'unpause', attributes: {}}]) : same(view);
    case 'updated': return withRecord(to(view, {}, [{action: 'update', attributes: {}}]), {task: event.task});
    case 'exit': return exited(view, event);
    case 'backoffElapsed': return view.record.observation.status === 'restarting' && view.record.launch
      ? withRecord(same(view, [{kind: 'launch', launch: view.record.launch}]), {launching: true}) : same(view);
    // Exit and cause come from the runtime by two ways, in either order: of one that has ended it is told as well, as the Engine does.
    case 'oom': return view.record.observation.status === 'created' ? same(view) : to(view, {oomKilled: true}, [{action: 'oom', attributes: {}}]);
    case 'health': return health(view, event);
    case 'remove': return remove(view, event);
    case 'found': return found(view, event);
    default: return unreachable(event);
  }
}

type Event<K extends ContainerEvent['kind']> = Extract<ContainerEvent, {kind: K}>;

function start(view: ContainerView, event: Event<'start'>): Decision {
  const {record} = view;
  const {status} = record.observation;
  if (record.removing) return refuse(view, 'conflict', 'container is marked for removal and cannot be started');
  if (status === 'paused') return refuse(view, 'conflict', 'cannot start a paused container, try unpause instead');
  if (status === 'running') {
    return record.task === event.task ? same(view) : refuse(view, 'notModified', `container ${record.observation.containerId} is already running`);
  }
  // The step is repeated after its process has come and gone: it did run, which is what was asked.
  if (record.task === event.task && status === 'exited' && !record.launching) return same(view);
  // Started by hand while the policy waits: the person wins, and the counters begin anew.
  const next: ContainerRecord = {
    ...record, launch: event.launch, desired: 'running', task: event.task, backoffMs: 0, launching: true,
    observation: {...record.observation, restartCount: 0, stoppedByUser: false, wantsStart: undefined},
  };
  return {record: next, reports: [], actions: [...(status === 'restarting' ? [{kind: 'cancelRestart'} as const] : []), {kind: 'launch', launch: event.launch}]};
}

function started(view: ContainerView, event: Event<'started'>): Decision {
  const restarted = view.record.observation.status === 'restarting';
  const {observation} = view.record;
  const decision = to(view, {
    status: 'running', pid: event.pid, startedAt: event.at, exitCode: 0, error: '', oomKilled: false,
    restartCount: observation.restartCount + (restarted ? 1 : 0),
    health: view.hasHealthcheck ? {status: 'starting', failingStreak: 0, log: []} : undefined,
  }, [{action: 'start', attributes: {}}], view.hasHealthcheck ? [{kind: 'probes', on: true}] : []);
  return withRecord(decision, {bootId: view.bootId, launching: false});
}

function startFailed(view: ContainerView, event: Event<'startFailed'>): Decision {
  const {observation} = view.record;
  // A restart by policy that fails counts as an exit and is tried again; one by hand is answered with its error.
  if (observation.status === 'restarting') {
    return withRecord(exited(view, {kind: 'exit', exitCode: event.exitCode, at: event.at, ranForMs: 0}, event.error), {launching: false});
  }
  return withRecord(to(view, {exitCode: event.exitCode, error: event.error, pid: 0}, [], [{kind: 'cleanUp', keepSandbox: false}]), {desired: 'stopped', launching: false, task: ''});
}

function stop(view: ContainerView, event: Event<'stop'>): Decision {
  const {record} = view;
  const byUser = {desired: 'stopped', task: event.task} as const;
  if (record.observation.status === 'restarting') {
    return withRecord(to(view, {status: 'exited', stoppedByUser: true}, [{action: 'stop', attributes: {}}], [{kind: 'cancelRestart'}, {kind: 'cleanUp', keepSandbox: false}]), byUser);
  }
  if (!alive(view)) return same(view);
  const signal = event.signal ?? view.stopSignal ?? SIGTERM;
  const seconds = event.timeoutSeconds ?? view.stopTimeoutSeconds ?? DEFAULT_STOP_SECONDS;
  return withRecord(
    to(view, {stoppedByUser: true}, [killReport(signal)], [{kind: 'signal', signal}, ...thaw(view), {kind: 'awaitExit', withinMs: seconds < 0 ? Infinity : seconds * 1000, then: 'stopTimedOut'}]),
    byUser,
  );
}

function kill(view: ContainerView, event: Event<'kill'>): Decision {
  const {record} = view;
  const id = record.observation.containerId;
  const final = event.signal === SIGKILL || view.stopSignal === undefined || view.stopSignal === event.signal;
  if (record.observation.status === 'restarting') {
    if (!final) return same(view);
    return withRecord(to(view, {status: 'exited', stoppedByUser: true}, [], [{kind: 'cancelRestart'}, {kind: 'cleanUp', keepSandbox: false}]), {desired: 'stopped', task: event.task});
  }
  if (!alive(view)) return record.task === event.task ? same(view) : refuse(view, 'conflict', `container ${id} is not running`);
  const decision = to(view, {stoppedByUser: true}, [killReport(event.signal)], [{kind: 'signal', signal: event.signal}, ...(final ? thaw(view) : [])]);
  return withRecord(decision, {task: event.task, ...(final ? {desired: 'stopped' as const} : {})});
}

function pause(view: ContainerView, event: Event<'pause'>): Decision {
  const {observation, task} = view.record;
  const id = observation.containerId;
  switch (observation.status) {
    case 'running': return {record: {...view.record, task: event.task}, reports: [], actions: [{kind: 'pause'}]};
    case 'paused': return task === event.task ? same(view) : refuse(view, 'conflict', `container ${id} is already paused`);
    case 'restarting': return refuse(view, 'conflict', `container ${id} is restarting, wait until the container is running`);
    case 'created':
    case 'exited': return refuse(view, 'conflict', `container ${id} is not running`);
    default: return unreachable(observation.status);
  }
}

function unpause(view: ContainerView, event: Event<'unpause'>): Decision {
  const {observation, task} = view.record;
  if (observation.status === 'paused') return {record: {...view.record, task: event.task}, reports: [], actions: [{kind: 'resume'}]};
  return task === event.task ? same(view) : refuse(view, 'conflict', `container ${observation.containerId} is not paused`);
}

function exited(view: ContainerView, event: Event<'exit'>, error = ''): Decision {
  const {record, policy} = view;
  if (!alive(view) && record.observation.status !== 'restarting') return same(view, [{kind: 'cleanUp', keepSandbox: false}]);
  const backoffMs = nextBackoff(record.backoffMs, event.ranForMs);
  const again = !record.removing && shouldRestart(policy, record, event.exitCode);
  const decision = to(view, {
    status: again ? 'restarting' : 'exited', pid: 0, exitCode: event.exitCode, error, finishedAt: event.at,
    // A start that failed while restarting has used up one try, as one that ran would have.
    ...(error ? {restartCount: record.observation.restartCount + 1} : {}),
  }, [{action: 'die', attributes: {exitCode: String(event.exitCode), execDuration: String(Math.floor(event.ranForMs / 1000))}}],
  [{kind: 'probes', on: false}, {kind: 'cleanUp', keepSandbox: again}, ...(again ? [{kind: 'restartAfter', ms: backoffMs} as const] : [])]);
  return withRecord(decision, again ? {backoffMs} : {desired: 'stopped', backoffMs: 0});
}

export function shouldRestart(policy: RestartPolicy, record: ContainerRecord, exitCode: number): boolean {
  if (record.desired === 'stopped' || !record.launch) return false;
  switch (policy.Name) {
    case 'always': return true;
    case 'unless-stopped': return !record.observation.stoppedByUser;
    case 'on-failure': {
      const most = policy.MaximumRetryCount ?? 0;
      return exitCode !== 0 && (most === 0 || record.observation.restartCount < most);
    }
    case undefined:
    case '':
    case 'no': return false;
    default: return unreachable(policy.Name);
  }
}

export function nextBackoff(lastMs: number, ranForMs: number): number {
  if (lastMs === 0 || ranForMs >= BACKOFF_RESET_MS) return FIRST_BACKOFF_MS;
  return Math.min(lastMs * 2, MAX_BACKOFF_MS);
}

function health(view: ContainerView, event: Event<'health'>): Decision {
  if (!alive(view)) return same(view);
  if (event.changed) return to(view, {health: event.health}, [{action: 'health_status', attributes: {}}]);
  // Not a transition: kept in memory and shown to whoever asks, written with the next one.
  return {record: {...view.record, observation: {...view.record.observation, health: event.health}}, reports: [], actions: []};
}

function remove(view: ContainerView, event: Event<'remove'>): Decision {
  const {record, name} = view;
  const {status} = record.observation;
  if (!record.removing && !event.force && (status === 'running' || status === 'paused' || status === 'restarting')) {
    const why = status === 'paused' ? 'container is paused and must be unpaused first' : `container is ${status}: stop the container before removing or force remove`;
    return refuse(view, 'conflict', `cannot remove container "/${name}": ${why}`);
  }
  const marked = withRecord(to(view, {}, alive(view) ? [killReport(SIGKILL)] : []), {removing: true, desired: 'stopped'});
  marked.actions.push({kind: 'cancelRestart'});
  if (alive(view)) marked.actions.push({kind: 'signal', signal: SIGKILL}, ...thaw(view), {kind: 'awaitExit', withinMs: KILL_WAIT_MS, then: 'fail'});
  marked.actions.push({kind: 'erase'});
  return marked;
}

/** Disk and runtime are compared; the runtime is right about what runs. */
function found(view: ContainerView, event: Event<'found'>): Decision {
  const {record} = view;
  const {task} = event;
  const {status} = record.observation;
  switch (task.status) {
    case 'running':
    case 'paused': {
      if (record.removing) return same(view, remove(view, {kind: 'remove', force: true}).actions);
      if (alive(view)) {
        const now = task.status;
        const actions: ContainerAction[] = view.hasHealthcheck ? [{kind: 'probes', on: true}] : [];
        return status === now ? same(view, actions) : to(view, {status: now}, [{action: now === 'paused' ? 'pause' : 'unpause', attributes: {}}], actions);
      }
      // The agent died between starting the process and writing so.
      const adopted = started(view, {kind: 'started', pid: task.pid, at: event.at});
      return {...adopted, actions: [{kind: 'cancelRestart'}, ...adopted.actions]};
    }
    case 'stopped':
      return alive(view) ? exited(view, {kind: 'exit', exitCode: task.exitCode, at: task.exitedAt || event.at, ranForMs: event.ranForMs}) : waiting(view, status);
    case 'created':
      // Never started: the job that wanted it repeats its step, and the policy its restart.
      return alive(view) ? lost(view, event) : waiting(view, status);
    case 'none':
      return alive(view) ? lost(view, event) : waiting(view, status);
    default: return unreachable(task.status);
  }
}

/** It ran, and now there is nothing: the machine was rebooted, or the runtime lost it. */
function lost(view: ContainerView, event: Event<'found'>): Decision {
  return exited(view, {kind: 'exit', exitCode: UNSEEN_EXIT_CODE, at: event.at, ranForMs: event.ranForMs});
}

function waiting(view: ContainerView, status: ContainerRecord['observation']['status']): Decision {
  const {record} = view;
  if (record.removing) return same(view, [{kind: 'erase'}]);
  if (status === 'restarting') return same(view, [{kind: 'cleanUp', keepSandbox: true}, {kind: 'restartAfter', ms: record.backoffMs || FIRST_BACKOFF_MS}]);
  const rebooted = record.bootId !== '' && record.bootId !== view.bootId;
  // `always` comes back after a reboot even where a person had stopped it, as the Engine does when its daemon starts.
  if (rebooted && status === 'exited' && view.policy.Name === 'always' && record.launch) {
    // Its addresses and ports were given back when it ended and may be another's by now: who holds them has to start it.
    if (record.launch.attachments.length || record.launch.ports.length)
      return withRecord(to(view, {wantsStart: true}, [{action: 'comeback', attributes: {}}], [{kind: 'cleanUp', keepSandbox: false}]), {bootId: view.bootId});
    const next = to(view, {status: 'restarting'}, []);
    return {...withRecord(next, {desired: 'running', bootId: view.bootId}), actions: [{kind: 'cleanUp', keepSandbox: false}, {kind: 'restartAfter', ms: FIRST_BACKOFF_MS}]};
  }
  return same(view, [{kind: 'cleanUp', keepSandbox: false}]);
}

function alive(view: ContainerView): boolean {
  const {status} = view.record.observation;
  return status === 'running' || status === 'paused';
}

/** A frozen process takes no signal: it is thawed after one that is meant to end it. */
function thaw(view: ContainerView): ContainerAction[] {
  return view.record.observation.status === 'paused' ? [{kind: 'resume'}] : [];
}

function killReport(signal: number): ReportBody {
  return {action: 'kill', attributes: {signal: String(signal)}};
}

/** A transition: the generation rises. */
function to(view: ContainerView, changes: Partial<ContainerRecord['observation']>, reports: ReportBody[], actions: ContainerAction[] = []): Decision {
  const {record} = view;
  return {record: {...record, observation: {...record.observation, ...changes, generation: record.observation.generation + 1}}, reports, actions};
}

function same(view: ContainerView, actions: ContainerAction[] = []): Decision {
  return {record: view.record, reports: [], actions};
}

function withRecord(decision: Decision, changes: Partial<ContainerRecord>): Decision {
  return {...decision, record: {...decision.record, ...changes}};
}

function refuse(view: ContainerView, kind: 'conflict' | 'notModified', message: string): Decision {
  return same(view, [{kind: 'refuse', error: new CetusError(kind, message)}]);
}
