/**
 * The verbs on containers. State is looked at first for the cheap answers (already started, not running); the chain looks again under its
 * lock, so that a race gets the same words from there. Whatever changes a container touches the view before it answers: read your writes.
 */
import {CetusError, isCetusError} from '../../base/errors';
import type {AgentClient} from '../../fleet/fleet';
import {isLocal} from '../../fleet/registry';
import type {Container} from '../../schema/container';
import type {Resources, RestartPolicy} from '../../schema/docker';
import type {Context} from '../context';
import {createContainer} from '../create/create';
import {checkResources, checkRestartPolicy, reservationOf} from '../create/hostconfig';
import {checkSignal} from '../create/merge';
import {checkName} from '../create/names';
import {asksNothing, checkOption, rowOf} from '../create/options';
import {containerAttributes, pruned} from '../events';
import {acceptFilters, labelFilters, untilFilter} from '../filters';
import {descendants} from '../images/lineage';
import {imageKey, resolveImage} from '../images/resolve';
import {BUCKETS} from '../../schema/buckets';
import type {Image} from '../../schema/objects';
import type {PredefinedNetworks} from '../networks-predefined';
import {unlessAway} from '../sizes';
import type {Caller, ContainerVerbs} from '../verbs';
import {linkNames, linkOwner, unlink} from './links';
import {A_MOMENT_MS, graceMs, hastened} from './hasten';
import {checkListFilters, selectContainers} from './list';
import {allSeen, mustReach, seen, unreached} from './lost';
import {isUp, notRunning, peekContainer, requireRunning, resolveContainer, restarting} from './resolve';
import {armWait} from './wait';

const notModified = (): CetusError => new CetusError('notModified', 'the container is in this state already');
const alreadyRemoving = (c: Container): CetusError => new CetusError('conflict', `removal of container ${c.id} is already in progress`);
const PRUNE_PARALLEL = 8;
const MAX_PORT_ATTEMPTS = 10;

export function containerVerbs(context: Context, predefined: PredefinedNetworks): ContainerVerbs {
  const resolve = (caller: Caller, nameOrId: string): Promise<Container> => resolveContainer(context, caller.account, nameOrId);
  const agentOf = async (c: Container): Promise<AgentClient> => {
    await mustReach(context, c);
    return context.fleet.agent(c.nodeId);
  };
  const emit = (caller: Caller, c: Container, action: string, more: Record<string, string> = {}): void =>
    context.events.emit(caller.account, {type: 'container', action, actorId: c.id, attributes: containerAttributes(c, more)});
  const changed = (c: Container): void => context.views.touch(c.account, c.id);
  /** Runs a chain on the container and touches the view whatever comes of it: a failed start changes the container too. */
  const change = async (c: Container, work: () => Promise<unknown>): Promise<void> => {
    try {
      await work();
    } finally {
      changed(c);
    }
  };

  /** As `change`, of what the node does: refused at once where it is away. A job would hold the container until it is back. */
  const order = async (c: Container, work: () => Promise<unknown>): Promise<void> => {
    await mustReach(context, c);
    await change(c, work);
  };
  /** Forgotten while its node is away for good, or so it seems: true where that was its end. */
  const forget = async (caller: Caller, c: Container, removeVolumes: boolean): Promise<boolean> => {
    const node = c.moving ? undefined : await context.fleet.node(c.nodeId).catch(() => undefined);
    if (!node || node.removing || node.liveness === 'alive') return false;
    if (node.liveness !== 'fenced') throw unreached(node, `cannot remove container "/${c.name}": it`, isLocal(node) ? '' : '; it can be removed when the node is back, or once it is fenced');
    try {
      await change(c, () => context.run(caller, 'container.forget', {containerId: c.id, from: c.nodeId, removeVolumes}));
      return true;
    } catch (err) {
      // The node is back, or the container is elsewhere by now.
      if (isCetusError(err, 'conflict') && err.info['reached']) return false;
      throw err;
    }
  };

  const verbs: ContainerVerbs = {
    create: (caller, name, body, platform) => createContainer(context, predefined, caller, name, body, platform),

    async list(caller, query) {
      checkListFilters(query.filters);
      const [before, since] = await Promise.all((['before', 'since'] as const).map((key) => (query.filters[key]?.[0] === undefined ? undefined : resolve(caller, query.filters[key][0]))));
      const ancestors = await ancestorIds(context, caller, query.filters['ancestor'] ?? []);
      return selectContainers(allSeen(context, await context.views.list(caller.account)), query, {ancestors, before, since});
    },

    get: async (caller, nameOrId) => seen(context, await resolve(caller, nameOrId)),

    async size(caller, c) {
      const image = await context.moray.peek<Image>(BUCKETS.images.name, imageKey(caller.account, c.imageId));
      // A listing must not fail because one node is away.
      const {sizeRw} = await unlessAway(async () => (await agentOf(c)).usage(c.id), {sizeRw: 0});
      return {sizeRw, sizeRootFs: sizeRw + (image?.value.size ?? 0)};
    },

    async start(caller, nameOrId) {
      const c = await resolve(caller, nameOrId);
      if (c.status === 'paused') throw new CetusError('conflict', 'cannot start a paused container, try unpause instead');
      if (c.status === 'running' || c.status === 'restarting') throw notModified();
      if (c.status === 'removing' || c.status === 'dead') throw new CetusError('conflict', 'container is marked for removal and cannot be started');
      await order(c, () => startWithFreePorts(context, caller, c).catch(async (err: unknown) => {
        if (c.autoRemove && !isCetusError(err, 'notModified')) await removeUnstarted(context, caller, c);
        throw err;
      }));
    },

    async stop(caller, nameOrId, options) {
      const c = await resolve(caller, nameOrId);
      if (options.signal) checkSignal(options.signal);
      if (!isUp(c) && c.status !== 'restarting') throw notModified();
      const stop = (lockWaitMs?: number): Promise<unknown> => context.run(caller, 'container.stop', {containerId: c.id, timeoutSeconds: options.timeoutSeconds ?? null, signal: options.signal || null}, {lockWaitMs});
      await order(c, () => hastened(context, caller, c, graceMs(c, options.timeoutSeconds), stop));
    },

    async restart(caller, nameOrId, options) {
      const c = await resolve(caller, nameOrId);
      if (options.signal) checkSignal(options.signal);
      if (c.status === 'removing' || c.status === 'dead') throw new CetusError('conflict', 'container is marked for removal and cannot be started');
      const params = {containerId: c.id, timeoutSeconds: options.timeoutSeconds ?? null, signal: options.signal || null};
      const restart = (lockWaitMs?: number): Promise<unknown> => context.run(caller, 'container.restart', params, {lockWaitMs}).catch(async (err: unknown) => {
        if (!wantsAnotherPort(c, err)) throw err;
        // It is stopped by now: what is left is a start.
        await startWithFreePorts(context, caller, c);
        emit(caller, c, 'restart');
      });
      await order(c, () => (isUp(c) ? hastened(context, caller, c, graceMs(c, options.timeoutSeconds), restart) : restart()));
    },

    async kill(caller, nameOrId, signal) {
      const refused = (err: CetusError): CetusError => new CetusError(err.kind, `cannot kill container: ${nameOrId}: ${err.shown}`, {cause: err});
      if (signal) checkKillSignal(signal, refused);
      const c = await resolve(caller, nameOrId).catch((err: unknown) => {
        throw isCetusError(err, 'notFound') ? refused(err) : err;
      });
      if (c.status === 'restarting') throw refused(restarting(c));
      if (!isUp(c)) throw refused(notRunning(c));
      await order(c, () => context.run(caller, 'container.kill', {containerId: c.id, signal: signal || 'KILL'}).catch((err: unknown) => {
        throw isCetusError(err, 'conflict') && !err.message.startsWith('cannot kill') ? refused(err) : err;
      }));
    },

    async pause(caller, nameOrId) {
      const c = await resolve(caller, nameOrId);
      if (c.status === 'paused') throw new CetusError('conflict', `container ${c.id} is already paused`);
      requireRunning(c);
      await order(c, () => context.run(caller, 'container.pause', {containerId: c.id}));
    },

    async unpause(caller, nameOrId) {
      const c = await resolve(caller, nameOrId);
      if (c.status !== 'paused') throw new CetusError('conflict', `Container ${c.id} is not paused`);
      await order(c, () => context.run(caller, 'container.unpause', {containerId: c.id}));
    },

    async rename(caller, nameOrId, newName) {
      if (!nameOrId || !newName) throw new CetusError('invalid', 'Neither old nor new names may be empty');
      const c = await resolve(caller, nameOrId);
      const name = checkNewName(newName);
      if (name === c.name) throw new CetusError('invalid', 'Renaming a container with the same name as its current name');
      await order(c, () => context.run(caller, 'container.rename', {containerId: c.id, name}));
    },

    async update(caller, nameOrId, resources, restartPolicy) {
      const c = await resolve(caller, nameOrId);
      const given = Object.fromEntries(Object.entries(resources).filter(([, value]) => !asksNothing(value))) as Resources;
      for (const [name, value] of Object.entries(given)) checkOption(name, rowOf('HostConfig', name), value, context.config);
      const after = settledUpdate(c, given);
      checkResources(after);
      if (restartPolicy) {
        checkRestartPolicy(restartPolicy);
        if (c.autoRemove && !['', 'no'].includes(restartPolicy.Name ?? '')) throw new CetusError('conflict', `Cannot update container ${c.id}: Restart policy cannot be updated because AutoRemove is enabled for the container`);
      }
      if (c.status === 'removing' || c.status === 'dead') throw new CetusError('conflict', 'Container is marked for removal and cannot be "update".');
      const reservation = reservationOf(after, context.config);
      const same = JSON.stringify(reservation) === JSON.stringify(c.reservation);
      await order(c, () => context.run(caller, 'container.update', {containerId: c.id, resources: given, restartPolicy: normalPolicy(restartPolicy), reservation: same ? null : reservation}));
      return {warnings: []};
    },

    async remove(caller, nameOrId, options) {
      if (options.link) return await change(await linkOwner(context, caller, nameOrId), () => unlink(context, caller, nameOrId));
      const c = await resolve(caller, nameOrId);
      const refused = (why: string): CetusError => new CetusError('conflict', `cannot remove container "/${c.name}": ${why}`);
      if (c.status === 'removing') throw alreadyRemoving(c);
      if (await forget(caller, c, options.volumes)) return;
      if (!options.force && c.status === 'paused') throw refused('container is paused and must be unpaused first');
      if (!options.force && (c.status === 'running' || c.status === 'restarting')) throw refused(`container is ${c.status}: stop the container before removing or force remove`);
      const destroy = (lockWaitMs?: number): Promise<unknown> => context.run(caller, 'container.destroy', {containerId: c.id, force: options.force, removeVolumes: options.volumes}, {lockWaitMs});
      await change(c, () => (options.force && isUp(c) ? hastened(context, caller, c, A_MOMENT_MS, destroy) : destroy()));
    },

    linkNames: async (caller) => linkNames(await context.views.list(caller.account)),

    async prune(caller, filters) {
      acceptFilters(filters, ['label', 'label!', 'until']);
      const matches = labelFilters(filters);
      const until = untilFilter(filters, context.clock.now());
      const candidates = (await context.views.list(caller.account)).filter((c) =>
        ['created', 'exited', 'dead'].includes(c.status) && matches(c.labels) && (until === undefined || Number(BigInt(c.createdAtNs) / 1_000_000n) <= until));
      const deleted: string[] = [];
      let spaceReclaimed = 0;
      const queue = [...candidates];
      await Promise.all(Array.from({length: PRUNE_PARALLEL}, async () => {
        for (let c = queue.shift(); c; c = queue.shift()) {
          const bytes = await verbs.size(caller, c).then((s) => s.sizeRw, () => 0);
          try {
            if (!(await forget(caller, c, false))) await change(c, () => context.run(caller, 'container.destroy', {containerId: c.id, force: false, removeVolumes: false}));
          } catch (err) {
            // Started, or removed by somebody else, meanwhile, or out of reach: not pruned, and not an error.
            if (!isCetusError(err, 'conflict') && !isCetusError(err, 'notFound') && !(isCetusError(err, 'unavailable') && err.info['liveness'])) throw err;
            continue;
          }
          deleted.push(c.id);
          spaceReclaimed += bytes;
        }
      }));
      context.events.emit(caller.account, pruned('container', spaceReclaimed));
      return {deleted, spaceReclaimed};
    },

    wait: async (caller, nameOrId, condition) => armWait(context, caller, await resolve(caller, nameOrId), condition),

    async attach(caller, nameOrId, query) {
      const c = await resolve(caller, nameOrId);
      // Attaching to a created one is how `docker run` loses no byte: it attaches first and starts then.
      if (c.status === 'paused') throw new CetusError('conflict', `container ${nameOrId} is paused, unpause the container before attach`);
      if (c.status === 'restarting') throw new CetusError('conflict', `container ${nameOrId} is restarting, wait until the container is running`);
      const stream = await (await agentOf(c)).attach(c.id, query);
      emit(caller, c, 'attach');
      return {stream, tty: c.spec.config.Tty ?? false};
    },

    async logs(caller, nameOrId, query) {
      if (!query.stdout && !query.stderr) throw new CetusError('invalid', 'Bad parameters: you must choose at least one stream');
      const c = await resolve(caller, nameOrId);
      if (c.spec.logConfig.Type === 'none') throw new CetusError('notImplemented', 'configured logging driver does not support reading');
      return {stream: await (await agentOf(c)).logs(c.id, query, caller.signal), tty: c.spec.config.Tty ?? false};
    },

    async top(caller, nameOrId, psArgs) {
      const c = await resolve(caller, nameOrId);
      requireRunning(c);
      const answer = await (await agentOf(c)).top(c.id, psArgs);
      emit(caller, c, 'top');
      return answer;
    },

    async stats(caller, nameOrId, query) {
      const c = await resolve(caller, nameOrId);
      return await (await agentOf(c)).stats(c.id, query, caller.signal);
    },

    async resize(caller, nameOrId, height, width) {
      const c = await resolve(caller, nameOrId);
      if (!isUp(c)) throw notRunning(c);
      await (await agentOf(c)).resize(c.id, height, width);
      emit(caller, c, 'resize', {height: String(height), width: String(width)});
    },

    async changes(caller, nameOrId) {
      const c = await resolve(caller, nameOrId);
      return (await agentOf(c)).changes(c.id);
    },

    async export(caller, nameOrId) {
      const c = await resolve(caller, nameOrId);
      const stream = await (await agentOf(c)).export(c.id);
      emit(caller, c, 'export');
      return stream;
    },

    async statPath(caller, nameOrId, path) {
      const c = await resolve(caller, nameOrId);
      return (await agentOf(c)).statPath(c.id, path).catch(fileIn(nameOrId));
    },

    async getArchive(caller, nameOrId, path) {
      const c = await resolve(caller, nameOrId);
      const answer = await (await agentOf(c)).getArchive(c.id, path).catch(fileIn(nameOrId));
      emit(caller, c, 'archive-path');
      return answer;
    },

    async putArchive(caller, nameOrId, query, body) {
      const c = await resolve(caller, nameOrId);
      await (await agentOf(c)).putArchive(c.id, query, body).catch(fileIn(nameOrId));
      emit(caller, c, 'extract-to-dir');
    },
  };
  return verbs;
}

/** A number that is no signal is refused of the container, a word that is none of the request. */
function checkKillSignal(signal: string, refused: (err: CetusError) => CetusError): void {
  try {
    checkSignal(signal);
  } catch (err) {
    throw isCetusError(err) && /does not support/.test(err.message) ? refused(err) : err;
  }
}

function checkNewName(newName: string): string {
  try {
    return checkName(`/${newName.replace(/^\//, '')}`);
  } catch (err) {
    throw isCetusError(err, 'invalid') ? new CetusError('invalid', `Error when allocating new name: ${err.message}`, {cause: err}) : err;
  }
}

/** Who calls a container by its name is told of it by its name. */
const fileIn = (nameOrId: string) => (err: unknown): never => {
  const file = isCetusError(err, 'notFound') ? err.info['file'] : undefined;
  throw typeof file === 'string' ? new CetusError('notFound', `Could not find the file ${file} in container ${nameOrId}`, {cause: err}) : err;
};

/** A port that was ours to choose and that a foreign program turns out to hold is no reason to fail: another one is chosen, as the Engine does. */
async function startWithFreePorts(context: Context, caller: Caller, c: Container): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      await context.run(caller, 'container.start', {containerId: c.id});
      return;
    } catch (err) {
      if (attempt >= MAX_PORT_ATTEMPTS || !wantsAnotherPort(c, err)) throw err;
    }
  }
}

function wantsAnotherPort(c: Container, err: unknown): boolean {
  const port = isCetusError(err, 'conflict') ? err.info['port'] : undefined;
  if (typeof port !== 'string') return false;
  // "tcp/0.0.0.0/49153"
  const [protocol, , hostPort] = port.split('/');
  const fixed = c.requestedPorts.some((p) => p.protocol === protocol && p.hostPort === Number(hostPort));
  return !fixed && c.requestedPorts.some((p) => p.protocol === protocol && p.hostPort === 0);
}

/** A --rm container that could not be started is removed, as the Engine does; where that fails the start's own error is what counts. */
async function removeUnstarted(context: Context, caller: Caller, c: Container): Promise<void> {
  try {
    const now = await peekContainer(context, caller.account, c.id);
    if (now && (now.status === 'created' || now.status === 'exited')) await context.run(caller, 'container.destroy', {containerId: c.id, force: false, removeVolumes: true});
  } catch (err) {
    if (!isCetusError(err, 'notFound')) context.log.warn({err, containerId: c.id}, 'removing a --rm container that could not be started');
  }
}

/** The limits as they will be: given ones over the container's, with the Engine's rule for swap. */
function settledUpdate(c: Container, given: Resources): Resources {
  const after: Resources = {...c.spec.hostConfig, ...given};
  const {Memory: memory = 0, MemorySwap: swap = 0} = after;
  if (given.Memory && !given.MemorySwap && swap > 0 && memory > swap)
    throw new CetusError('conflict', `Cannot update container ${c.id}: Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time`);
  return after;
}

function normalPolicy(policy: RestartPolicy | undefined): RestartPolicy | null {
  return policy?.Name ? {Name: policy.Name, MaximumRetryCount: policy.MaximumRetryCount ?? 0} : null;
}

/** `ancestor`: images by name or id, and what was made from them. An unknown image selects nothing and is no error. */
async function ancestorIds(context: Context, caller: Caller, values: readonly string[]): Promise<ReadonlySet<string> | undefined> {
  if (values.length === 0) return undefined;
  const ids = new Set<string>();
  for (const value of values) {
    try {
      const {image} = await resolveImage(context, caller.account, value);
      for (const id of await descendants(context, caller.account, image)) ids.add(id);
    } catch (err) {
      if (!isCetusError(err, 'notFound') && !isCetusError(err, 'invalid')) throw err;
    }
  }
  return ids;
}

