/** The verbs on execs: what was asked is in the store, what runs is on the node. Events exec_create and exec_start are written here, exec_die by fleet. */
import {formatNs} from '../base/clock';
import {CetusError, isCetusError} from '../base/errors';
import {eq, le} from '../moray/filter';
import {BUCKETS} from '../schema/buckets';
import type {Container} from '../schema/container';
import type {ExecConfig} from '../schema/docker';
import type {Exec} from '../schema/objects';
import type {ExecObservation} from '../schema/agent';
import type {Context} from './context';
import {gate} from './create/options';
import {mustReach, unreached} from './containers/lost';
import {isUp, peekContainer, requireRunning, resolveContainer} from './containers/resolve';
import {containerAttributes} from './events';
import type {Caller, ExecVerbs} from './verbs';

const BUCKET = BUCKETS.execs.name;
const noSuchExec = (id: string): CetusError => new CetusError('notFound', `No such exec instance: ${id}`);
/** Execs that this process was told of lately: where they run does not change, so what lies behind that can be asked together with the exec itself. */
const MAX_RECENT = 1000;
/** With the space behind a command without arguments that the Engine has. */
const command = ({Cmd}: ExecConfig): string => {
  const [entrypoint = '', ...args] = Cmd ?? [];
  return `${entrypoint} ${args.join(' ')}`;
};

export function execVerbs(context: Context): ExecVerbs {
  const recent = new Map<string, Pick<Exec, 'containerId' | 'nodeId'>>();
  const remember = (id: string, {containerId, nodeId}: Exec): void => {
    recent.set(id, {containerId, nodeId});
    if (recent.size > MAX_RECENT) recent.delete(recent.keys().next().value!);
  };
  const find = async (caller: Caller, id: string): Promise<Exec> => {
    const stored = await context.moray.peek<Exec>(BUCKET, id);
    if (!stored || stored.value.account !== caller.account) throw noSuchExec(id);
    return stored.value;
  };
  const emit = (caller: Caller, c: Container, action: string, execId: string): void =>
    context.events.emit(caller.account, {type: 'container', action, actorId: c.id, attributes: containerAttributes(c, {execID: execId})});

  /** undefined where the node is away, or has forgotten it: what the store knows is what can be said. */
  const observe = async (nodeId: string, execId: string): Promise<ExecObservation | undefined> => {
    try {
      return await (await context.fleet.agent(nodeId)).observeExec(execId);
    } catch (err) {
      if (!isCetusError(err, 'unavailable') && !isCetusError(err, 'timeout') && !isCetusError(err, 'notFound')) throw err;
      return undefined;
    }
  };

  return {
    async create(caller, containerNameOrId, config) {
      const c = await resolveContainer(context, caller.account, containerNameOrId);
      if (!config.Cmd?.length) throw new CetusError('invalid', 'No exec command specified');
      if (config.Privileged) gate('Privileged', 'allowPrivileged', context.config);
      for (const entry of config.Env ?? []) if (entry === '' || entry.startsWith('=')) throw new CetusError('invalid', `invalid environment variable: ${entry}`);
      requireRunning(c, 'exec', containerNameOrId);
      await mustReach(context, c);
      const id = context.ids.hex64();
      const exec: Exec = {id, account: caller.account, containerId: c.id, nodeId: c.nodeId, config, running: false, exitCode: null, pid: 0, createdAt: formatNs(context.clock.nowNs())};
      // Both at once: neither alone is of use to anybody, and an exec that the node does not know answers as one that never was.
      const both = await Promise.allSettled([
        context.fleet.agent(c.nodeId).then((a) => a.putExec(id, c.id, config)),
        context.moray.put(BUCKET, id, exec, {etag: null}),
      ]);
      const failed = both.find((one) => one.status === 'rejected');
      if (failed) {
        // Once both are over: a write still under way would bring back what is deleted here.
        await context.moray.delete(BUCKET, id).catch(() => undefined);
        throw failed.reason;
      }
      remember(id, exec);
      emit(caller, c, `exec_create: ${command(config)}`, id);
      return {id};
    },

    async start(caller, execId, query) {
      const at = recent.get(execId);
      const [exec, near] = await Promise.all([find(caller, execId), at && peekContainer(context, caller.account, at.containerId)]);
      const c = at ? near : await peekContainer(context, caller.account, exec.containerId);
      if (!c) throw noSuchExec(execId);
      if (exec.exitCode !== null) throw new CetusError('conflict', `exec command ${execId} has already run`);
      // An exec that waited to be started has gone with the process that it would have joined.
      if (!isUp(c) && c.status !== 'restarting') throw noSuchExec(execId);
      requireRunning(c, 'exec');
      await mustReach(context, c);
      const agent = await context.fleet.agent(exec.nodeId);
      const {DetachKeys, ConsoleSize} = exec.config;
      const stream = await agent.startExec(execId, {detachKeys: query.detachKeys || DetachKeys || '', consoleSize: query.consoleSize ?? ConsoleSize ?? null, detach: query.detach});
      emit(caller, c, `exec_start: ${command(exec.config)}`, execId);
      return {stream, tty: exec.config.Tty ?? false};
    },

    async get(caller, execId) {
      const at = recent.get(execId);
      const early = at && observe(at.nodeId, execId);
      early?.catch(() => undefined);
      const exec = await find(caller, execId);
      if (exec.exitCode !== null) return {exec, live: undefined};
      const live = await (early ?? observe(exec.nodeId, execId));
      // Neither that it runs nor how it ended is known, and whoever asks takes one of the two for granted.
      const node = live ? undefined : context.fleet.away?.get(exec.nodeId);
      if (node) throw unreached(node, `exec ${execId}`);
      return {exec, live};
    },

    async resize(caller, execId, height, width) {
      const exec = await find(caller, execId);
      await (await context.fleet.agent(exec.nodeId)).resizeExec(execId, height, width);
    },

    async open(caller, c) {
      if (!isUp(c) || c.account !== caller.account) return [];
      const execs = (await context.moray.list<Exec>(BUCKET, eq('containerId', c.id))).map((e) => e.value);
      // Those of an earlier run ended with it, whether their end was told or not.
      const open = execs.filter((e) => e.exitCode === null && e.createdAt >= c.observation.startedAt).sort((a, b) => (a.createdAt < b.createdAt ? -1 : 1));
      // The node knows of an end before its report is here.
      const seen = await Promise.all(open.map((e) => observe(e.nodeId, e.id)));
      return open.filter((_, n) => (seen[n]?.exitCode ?? null) === null).map((e) => e.id);
    },
  };
}

/** Execs are history an hour after they were made, unless they still run; the Engine forgets them after five minutes. */
export async function pruneExecs(context: Context, olderThanMs: number): Promise<void> {
  const before = new Date(context.clock.now() - olderThanMs).toISOString();
  for await (const {key, value, etag} of context.moray.find<Exec>(BUCKET, le('createdAt', before), {limit: 1000})) {
    const gone = value.exitCode !== null || !(await context.moray.peek(BUCKETS.containers.name, value.containerId));
    if (gone) await context.moray.delete(BUCKET, key, {etag}).catch(() => undefined);
  }
}
