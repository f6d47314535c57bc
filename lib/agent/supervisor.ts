/**
 * All containers of the node: units by id, the tasks that change them, and the runtime's events handed to the one they concern.
 * Every task is repeatable; what makes it so is said at each. Called by the server (tasks, reads) and by createAgent.
 */
import {asCetusError, CetusError, unreachable} from '../base/errors';
import type {NodeImage, TaskBody, TaskOutput} from '../schema/agent';
import {type ContainerObservation, withDefaultRoute} from '../schema/container';
import type {NodeParts} from './container/node-parts';
import {ContainerUnit} from './container/unit';
import {unmountShm} from './container/shm';
import {parseSignal} from './container/signals';
import type {Execs} from './exec/execs';
import {checkLogOptions} from './logs/options';
import type {RuntimeEvent} from './runtime/runtime';

export type SupervisorParts = NodeParts & {execs: Execs};

/** Taking away what a container leaves takes milliseconds; who depends on it does not wait for ever. */
const SETTLE_MS = 5_000;

/** A container that is paused by a task of this name is paused for a commit, and for no longer than that lives. */
const COMMIT_TASK = 'commit:';

const ID = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$/;

export class Supervisor {
  readonly units = new Map<string, ContainerUnit>();
  /** Creates under way: a removal, or the same create again, waits for them. */
  private readonly creating = new Map<string, Promise<ContainerUnit>>();
  /** Gone for everybody; the last of them is being taken away. */
  private readonly erasing = new Map<string, ContainerUnit>();

  constructor(private readonly parts: SupervisorParts) {}

  unit(id: string): ContainerUnit {
    const unit = this.units.get(id);
    if (!unit) throw new CetusError('notFound', `No such container: ${id}`);
    unit.mustBeThere();
    return unit;
  }

  get running(): number {
    let count = 0;
    for (const unit of this.units.values()) if (unit.running) count += 1;
    return count;
  }

  /** What may be started elsewhere once this node is fenced. */
  get marked(): ContainerUnit[] {
    return [...this.units.values()].filter((unit) => unit.record.reschedule && !unit.gone);
  }

  /** `key` names the job and step: a unit's own work is known by it after a restart of the agent. */
  async execute(body: TaskBody, key: string): Promise<TaskOutput> {
    switch (body.kind) {
      case 'container.create': {
        const unit = await this.create(body);
        if (body.reschedule !== undefined) await unit.mark(body.reschedule);
        return {observation: unit.observation};
      }
      case 'container.start': {
        const {networks, attachments, ports, links} = body;
        // A port may be a container's that has just ended: its node still holds it for a moment after its lease was given back.
        if (ports.length) await this.settled();
        const unit = this.unit(body.containerId);
        if (body.reschedule !== undefined) await unit.mark(body.reschedule);
        await unit.admitted();
        return {observation: await unit.handle({kind: 'start', task: key, launch: {networks, attachments, ports, ...(links?.length ? {links} : {})}})};
      }
      case 'container.stop': return {observation: await this.stop(body, key)};
      case 'container.kill': return {observation: await this.unit(body.containerId).handle({kind: 'kill', task: key, signal: parseSignal(body.signal)})};
      case 'container.pause': return {observation: await this.unit(body.containerId).handle({kind: 'pause', task: key})};
      case 'container.unpause': return {observation: await this.unit(body.containerId).handle({kind: 'unpause', task: key})};
      case 'container.update': {
        const unit = this.unit(body.containerId);
        if (body.reschedule !== undefined) await unit.mark(body.reschedule);
        return {observation: await unit.update(key, body.resources, body.restartPolicy)};
      }
      case 'container.rename': return {observation: await this.unit(body.containerId).rename(body.name)};
      case 'container.remove':
        await this.remove(body.containerId, body.force);
        return {};
      case 'network.ensure':
        await this.parts.network.ensureNetwork(body.network);
        return {};
      case 'network.remove':
        await this.settled();
        await this.parts.network.removeNetwork(body.networkId);
        return {};
      case 'network.table':
        await this.parts.network.applyTable(body.network, body.table);
        return {};
      case 'network.connect': return {observation: await this.connect(body)};
      case 'network.disconnect': return {observation: await this.disconnect(body.containerId, body.networkId)};
      case 'volume.ensure': return await this.parts.volumes.ensure(body.volumeId, body.options, body.within);
      case 'volume.remove':
        await this.settled();
        await this.parts.volumes.remove(body.volumeId);
        return {};
      case 'image.remove':
        await this.settled();
        await this.parts.images.remove(body.imageId, body.account);
        return {};
      case 'image.commit': return {image: await this.commit(body, `${COMMIT_TASK}${key}`), observation: this.unit(body.containerId).observation};
      default: return unreachable(body);
    }
  }

  /** Events of the runtime until the signal aborts; each container's in their order, different containers' side by side. */
  async follow(signal: AbortSignal): Promise<void> {
    for await (const event of this.parts.runtime.events(signal)) {
      this.dispatch(event).catch((err: unknown) => this.parts.log.error({err, event}, 'an event of the runtime could not be worked off'));
    }
  }

  async reconcileAll(): Promise<void> {
    await Promise.all([...this.units.values()].map((unit) => this.reconcile(unit)));
  }

  /** Resolves when what is done behind answers is done: nothing is being made, nothing is left to be taken away. After a bound also where something resists. */
  async settled(): Promise<void> {
    const late = new AbortController();
    const done = Promise.all([...this.units.values(), ...this.erasing.values()].map((unit) => unit.settled()));
    await Promise.race([done, this.parts.clock.sleep(SETTLE_MS, late.signal).catch(() => undefined)]);
    late.abort();
  }

  /** Attached clients are let go without an end of stdin: the next agent's clients may have more for it. */
  cutClients(): void {
    for (const unit of this.units.values()) unit.hub.cutClients();
  }

  /** The agent goes: containers stay as they are. */
  async suspend(): Promise<void> {
    await Promise.all([...this.units.values(), ...this.erasing.values()].map((unit) => unit.suspend()));
  }

  async reconcile(unit: ContainerUnit): Promise<void> {
    try {
      await unit.reconcile();
      if (unit.gone) this.forget(unit);
    } catch (err) {
      this.parts.log.error({err, containerId: unit.id}, 'a container\'s state could not be compared with the runtime\'s');
    }
  }

  async pidOf(id: string): Promise<number> {
    const unit = this.unit(id);
    if (!unit.running) throw new CetusError('conflict', `container ${id} is not running`);
    return unit.observation.pid;
  }

  shmOf(id: string): string {
    const mode = this.unit(id).spec.hostConfig.IpcMode ?? '';
    if (mode === 'shareable') return this.parts.store.shmPath(id);
    if (mode === 'host') return '/dev/shm';
    if (mode.startsWith('container:')) return this.shmOf(mode.slice('container:'.length));
    throw new CetusError('conflict', `can't join IPC of container ${id}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)`);
  }

  private async dispatch(event: RuntimeEvent): Promise<void> {
    switch (event.kind) {
      case 'exit':
        if (event.execId) await this.parts.execs.exited(event);
        else await this.units.get(event.containerId)?.exited(event);
        return;
      case 'oom': {
        const unit = this.units.get(event.containerId);
        if (unit && !unit.gone) await unit.handle({kind: 'oom'});
        return;
      }
      // Nobody else pauses: the calls' own answers are the transitions, and a late event must not undo the next one.
      case 'paused':
      case 'resumed': return;
      case 'reconnected': return await this.reconcileAll();
      default: return unreachable(event);
    }
  }

  /** Those that were frozen for a commit which the agent's last life did not finish run again; whoever wants the commit repeats it. */
  async thaw(): Promise<void> {
    for (const unit of this.units.values())
      if (unit.observation.status === 'paused' && unit.record.task.startsWith(COMMIT_TASK))
        await unit.handle({kind: 'unpause', task: ''}).catch((err: unknown) => this.parts.log.error({err, containerId: unit.id}, 'a container that a commit had paused stays paused'));
  }

  /** Repeated after the agent's death it makes another image of the same files: the first was held by nobody but that life. */
  private async commit({containerId, pause, account, created, author, comment, config, containerConfig}: Extract<TaskBody, {kind: 'image.commit'}>, task: string): Promise<NodeImage> {
    const unit = this.unit(containerId);
    // Its snapshot is made behind create's answer.
    await unit.rootMounts();
    // Who stops, or is stopped by somebody else just now, needs no pause: as the Engine, a refusal is no reason not to go on.
    if (pause && unit.observation.status === 'running') await unit.handle({kind: 'pause', task}).catch(() => undefined);
    try {
      const {id: imageId, manifestDigest} = unit.spec.image;
      return await this.parts.images.commit({account, containerId, base: {imageId, manifestDigest}, created, author, comment, config, containerConfig});
    } finally {
      // Whoever let it go on meanwhile, or paused it, has the last word.
      if (unit.observation.status === 'paused' && unit.record.task === task) await unit.handle({kind: 'unpause', task: ''}).catch(() => undefined);
    }
  }

  /** Repeatable: what is there already is kept, and what is missing is made. */
  private async create(body: Extract<TaskBody, {kind: 'container.create'}>): Promise<ContainerUnit> {
    const {id} = body.spec;
    const known = this.units.get(id);
    if (known && !known.record.removing && known.record.observation.status !== 'created') return known;
    const under = this.creating.get(id);
    if (under) return await under;
    const made = this.make(body).finally(() => this.creating.delete(id));
    this.creating.set(id, made);
    return await made;
  }

  private async make(body: Extract<TaskBody, {kind: 'container.create'}>): Promise<ContainerUnit> {
    const {spec} = body;
    const {parts} = this;
    await this.erasing.get(spec.id)?.erased;
    if (!ID.test(spec.id)) throw new CetusError('invalid', `invalid container id "${spec.id}"`);
    checkLogOptions(spec.logConfig, spec);
    if (spec.config.StopSignal) parseSignal(spec.config.StopSignal);
    const [image] = await Promise.all([
      parts.images.prepare(spec.image.id, spec.image.manifestDigest, {trusting: true}),
      ...body.volumes.map((volume) => parts.volumes.ensure(volume.id, volume.options, volume.within)),
    ]);
    const stored = {spec, image: image.config, parentSnapshot: image.parentSnapshot};
    // Before anything exists in the runtime: whoever finds the snapshot finds its owner.
    parts.store.saveSpec(spec.id, stored);
    const unit = this.units.get(spec.id) ?? new ContainerUnit(parts, stored);
    unit.save();
    unit.prepare();
    // Waits for the snapshot only where the image fills a volume.
    await parts.volumes.prepare(spec, () => unit.rootMounts()).catch(async (err: unknown) => {
      await unit.settled();
      throw err;
    });
    this.units.set(spec.id, unit);
    return unit;
  }

  private async stop(body: Extract<TaskBody, {kind: 'container.stop'}>, key: string): Promise<ContainerObservation> {
    const unit = this.unit(body.containerId);
    const signal = body.signal ? parseSignal(body.signal) : undefined;
    const wasAlive = unit.running;
    const observation = await unit.handle({kind: 'stop', task: key, signal, timeoutSeconds: body.timeoutSeconds});
    await portsFree(unit);
    return wasAlive && !unit.gone ? await unit.handle({kind: 'stopped'}) : observation;
  }

  /** Repeatable: what is gone already is a success, also where only the runtime still knows it. Answers once the removal can no longer fail to happen. */
  private async remove(id: string, force: boolean): Promise<void> {
    if (!ID.test(id)) throw new CetusError('invalid', `invalid container id "${id}"`);
    await this.creating.get(id)?.catch(() => undefined);
    if (this.erasing.has(id)) return;
    const unit = this.units.get(id);
    if (!unit) return await this.eraseOrphan(id);
    try {
      await unit.handle({kind: 'remove', force});
    } catch (err) {
      // Two removals at once: the second finds the work done.
      if (!unit.gone || asCetusError(err).kind !== 'notFound') throw err;
    }
    this.forget(unit);
    await portsFree(unit);
  }

  private forget(unit: ContainerUnit): void {
    const {id} = unit;
    if (this.units.get(id) === unit) this.units.delete(id);
    if (this.erasing.has(id)) return;
    this.erasing.set(id, unit);
    void unit.erased.then(() => this.erasing.delete(id));
  }

  /** Whatever of a container exists without a unit: a create that was cut short, or a leftover of a life before. */
  async eraseOrphan(id: string): Promise<void> {
    const {runtime, network, store, volumes} = this.parts;
    const state = await runtime.state(id);
    if (state.status === 'running' || state.status === 'paused') await this.killOrphan(id, state.status === 'paused');
    await runtime.deleteTask(id);
    await runtime.remove(id);
    await Promise.all([network.removeSandbox(id), unmountShm(store.shmPath(id)), volumes.release(id)]);
    store.erase(id);
  }

  private async killOrphan(id: string, paused: boolean): Promise<void> {
    const {runtime, clock} = this.parts;
    await runtime.kill(id, '', 9, true).catch(() => undefined);
    if (paused) await runtime.resume(id).catch(() => undefined);
    for (let tries = 0; tries < 500; tries += 1) {
      if ((await runtime.state(id)).status === 'stopped') return;
      await clock.sleep(10);
    }
    throw new CetusError('timeout', `tried to kill container ${id}, but it did not end`);
  }

  private async connect(body: Extract<TaskBody, {kind: 'network.connect'}>): Promise<ContainerObservation> {
    const unit = this.unit(body.containerId);
    await unit.relink(async (launch) => {
      await this.parts.network.connect(body.containerId, body.network, body.attachment);
      return {
        ...launch,
        networks: [...launch.networks.filter((n) => n.id !== body.network.id), body.network],
        attachments: withDefaultRoute([...launch.attachments.filter((a) => a.networkId !== body.network.id), body.attachment]),
      };
    });
    return unit.observation;
  }

  private async disconnect(containerId: string, networkId: string): Promise<ContainerObservation> {
    const unit = this.unit(containerId);
    await unit.relink(async (launch) => {
      await this.parts.network.disconnect(containerId, networkId);
      return {...launch, networks: launch.networks.filter((n) => n.id !== networkId), attachments: withDefaultRoute(launch.attachments.filter((a) => a.networkId !== networkId))};
    });
    return unit.observation;
  }
}

/** Whoever stops or removes a container may give its port to a foreign program next, which asks us nothing: the answer waits until the port is free. */
async function portsFree(unit: ContainerUnit): Promise<void> {
  if (unit.record.launch?.ports.length) await unit.cleaning;
}
