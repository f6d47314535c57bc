/**
 * An agent in memory behind the AgentClient interface, for other rooms' tests and for the model of crashes: an idempotent ledger per (job, step),
 * stale epochs refused, containers with rising generations, reports as a real agent makes them, and failures by script.
 * It runs nothing; a process "ends" when the test calls `exit`.
 */
import {createHash} from 'node:crypto';
import {Duplex, PassThrough, Readable} from 'node:stream';
import {type Clock, formatNs, systemClock, ZERO_TIME} from '../base/clock';
import {CetusError, unreachable} from '../base/errors';
import type {BuiltNames, EnsureLine, EnsureRequest, ExecObservation, ImportLine, ImportRequest, Inventory, LoadLine, NetworkTable, NodeImage, NodeImages, PullLine, PushLine, PushRequest, RegistryAnswers, RegistryQuestion, Report, Task, TaskBody, TaskKind, TaskOutput} from '../schema/agent';
import type {ContainerObservation, ContainerSpec, NetworkAttachment, PublishedPort} from '../schema/container';
import type {RegistryAuth} from '../schema/docker';
import type {NodeFacts} from '../schema/node';
import {DEFAULT_ACCOUNT} from '../schema/objects';
import type {AgentBuilds, AgentClient} from './fleet';

/**
 * `before`: the task fails and nothing has happened. `after`: it has happened and the answer is lost.
 * `refuse`: the agent answers with the error, and repeats that answer.
 */
export interface ScriptedFailure { kind: TaskKind; when: 'before' | 'after' | 'refuse'; error?: CetusError; times?: number }

interface FakeContainer { spec: ContainerSpec; observation: ContainerObservation; attachments: NetworkAttachment[]; ports: PublishedPort[] }
interface Ledgered { answer: TaskOutput | CetusError }
type ReportBody = Report extends infer R ? R extends Report ? Omit<R, 'seq' | 'at'> : never : never;

export interface FakeAgentOptions {
  facts?: Partial<NodeFacts>;
  clock?: Clock;
  /** Every report, as it is made. */
  onReport?(report: Report): void;
}

export class FakeAgent implements AgentClient {
  readonly facts: NodeFacts;
  readonly containers = new Map<string, FakeContainer>();
  readonly networks = new Map<string, string>();
  /** By network: what it was told of where others are, in order. */
  readonly tables = new Map<string, NetworkTable[]>();
  readonly volumes = new Map<string, string>();
  readonly images = new Map<string, NodeImage>();
  readonly execs = new Map<string, ExecObservation>();
  /** Every task that arrived, repeated ones included. */
  readonly tasks: Task[] = [];
  readonly reports: Report[] = [];
  /** What streams answer; replace to script them. */
  stream: (what: string, id: string) => Duplex = () => new PassThrough({allowHalfOpen: true}).end();
  /** What a pull finds, by reference. */
  registry = new Map<string, NodeImage>();
  readonly pushed: PushRequest[] = [];
  /** What it was told to take from others, and the nodes that it can reach for that. */
  readonly ensured: EnsureRequest[] = [];
  peers: () => readonly FakeAgent[] = () => [];
  reachable = true;

  private readonly ledger = new Map<string, Ledgered>();
  private readonly epochs = new Map<string, number>();
  private failures: ScriptedFailure[] = [];
  private readonly clock: Clock;

  constructor(private readonly options: FakeAgentOptions = {}) {
    this.clock = options.clock ?? systemClock;
    this.facts = {
      nodeId: 'node-1', name: 'node-1', platform: 'linux/amd64', architecture: 'x86_64', kernelVersion: '6.1.0', operatingSystem: 'Debian GNU/Linux 12',
      osType: 'linux', cpus: 4, cpusetCpus: '0-3', cpusetMems: '0', memoryBytes: 8 * 2 ** 30, diskBytes: 100 * 2 ** 30, pids: 32_768, cgroupVersion: 2, cgroupDriver: 'cgroupfs',
      containerdVersion: 'fake', runcVersion: 'fake', snapshotter: 'fake', agentUrl: 'fake:', agentVersion: '0.1.0', labels: {}, bootGeneration: 1,
      ...options.facts,
    };
  }

  /** The next `times` tasks of the kind fail so. */
  fail(failure: ScriptedFailure): void {
    this.failures.push({times: 1, ...failure});
  }

  /** The container's process ends by itself. */
  exit(containerId: string, exitCode: number, more: Partial<ContainerObservation> = {}): void {
    const container = this.container(containerId);
    this.move(container, {status: 'exited', pid: 0, exitCode, finishedAt: this.now(), ...more});
    this.report({kind: 'container', action: 'die', attributes: {exitCode: String(exitCode)}, observation: container.observation});
  }

  /** The node was rebooted, and the container's policy wants it back. */
  comeback(containerId: string): void {
    const container = this.container(containerId);
    this.move(container, {wantsStart: true});
    this.report({kind: 'container', action: 'comeback', attributes: {}, observation: container.observation});
  }

  async task(task: Task): Promise<TaskOutput> {
    this.tasks.push(structuredClone(task));
    this.reach();
    const newest = this.epochs.get(task.jobId) ?? 0;
    if (task.epoch < newest) throw new CetusError('stale', `task ${task.jobId}/${task.step} carries epoch ${task.epoch}, epoch ${newest} has been seen`);
    this.epochs.set(task.jobId, task.epoch);
    const key = `${task.jobId}/${task.step}`;
    const failure = this.takeFailure(task.body.kind);
    if (failure?.when === 'before') throw failure.error ?? new CetusError('unavailable', `node ${this.facts.name} cannot be reached`);
    // Whoever tells the same again is heard again, as at a real agent.
    const entry = (task.body.kind === 'network.table' ? undefined : this.ledger.get(key)) ?? this.record(key, failure, task.body);
    if (failure?.when === 'after') throw failure.error ?? new CetusError('timeout', `node ${this.facts.name} did not answer in time`);
    if (entry.answer instanceof CetusError) throw entry.answer;
    return structuredClone(entry.answer);
  }

  private record(key: string, failure: ScriptedFailure | undefined, body: TaskBody): Ledgered {
    const entry: Ledgered = {answer: {}};
    try {
      if (failure?.when === 'refuse') throw failure.error ?? new CetusError('internal', `scripted failure of ${body.kind}`);
      entry.answer = structuredClone(this.perform(body));
    } catch (err) {
      entry.answer = err as CetusError;
    }
    this.ledger.set(key, entry);
    return entry;
  }

  private perform(body: TaskBody): TaskOutput {
    switch (body.kind) {
      case 'container.create': return this.create(body.spec);
      case 'container.start': return this.start(body);
      case 'container.stop': return this.stop(this.container(body.containerId), body.signal ?? 'SIGTERM', 'stop');
      case 'container.kill': {
        const container = this.container(body.containerId);
        if (container.observation.status !== 'running' && container.observation.status !== 'paused')
          throw new CetusError('conflict', `Container ${body.containerId} is not running`);
        return this.stop(container, body.signal, 'kill');
      }
      case 'container.pause': return this.turn(body.containerId, 'running', 'paused', 'pause');
      case 'container.unpause': return this.turn(body.containerId, 'paused', 'running', 'unpause');
      case 'container.update': {
        const container = this.container(body.containerId);
        Object.assign(container.spec.hostConfig, body.resources, body.restartPolicy ? {RestartPolicy: body.restartPolicy} : {});
        this.move(container, {});
        this.report({kind: 'container', action: 'update', attributes: {}, observation: container.observation});
        return {observation: container.observation};
      }
      case 'container.rename': {
        const container = this.container(body.containerId);
        container.spec.name = body.name;
        return {observation: container.observation};
      }
      case 'container.remove': return this.remove(body.containerId, body.force);
      case 'network.ensure': this.networks.set(body.network.id, body.network.bridgeName); return {};
      case 'network.remove':
        this.networks.delete(body.networkId);
        this.tables.delete(body.networkId);
        return {};
      case 'network.table':
        this.tables.set(body.network.id, [...(this.tables.get(body.network.id) ?? []), body.table]);
        return {};
      case 'network.connect': {
        const container = this.container(body.containerId);
        this.networks.set(body.network.id, body.network.bridgeName);
        if (!container.attachments.some(a => a.networkId === body.network.id)) container.attachments.push(body.attachment);
        return {};
      }
      case 'network.disconnect': {
        const container = this.containers.get(body.containerId);
        if (container) container.attachments = container.attachments.filter(a => a.networkId !== body.networkId);
        return {};
      }
      case 'volume.ensure': this.volumes.set(body.volumeId, body.name); return {mountpoint: `/fake/volumes/${body.volumeId}/_data`};
      case 'volume.remove': this.volumes.delete(body.volumeId); return {};
      case 'image.remove': this.images.delete(body.imageId); return {};
      case 'image.commit': return {image: this.commit(body), observation: this.container(body.containerId).observation};
      default: return unreachable(body);
    }
  }

  private create(spec: ContainerSpec): TaskOutput {
    let container = this.containers.get(spec.id);
    if (!container) {
      container = {
        spec, attachments: [], ports: [],
        observation: {containerId: spec.id, generation: 1, status: 'created', pid: 0, exitCode: 0, error: '', oomKilled: false, startedAt: ZERO_TIME, finishedAt: ZERO_TIME, restartCount: 0},
      };
      this.containers.set(spec.id, container);
    }
    return {observation: container.observation};
  }

  private start(body: Extract<TaskBody, {kind: 'container.start'}>): TaskOutput {
    const container = this.container(body.containerId);
    if (container.observation.status !== 'running') {
      for (const network of body.networks) this.networks.set(network.id, network.bridgeName);
      container.attachments = body.attachments;
      container.ports = body.ports;
      this.move(container, {status: 'running', pid: 4242, exitCode: 0, error: '', oomKilled: false, startedAt: this.now(), restartCount: 0, stoppedByUser: false, wantsStart: undefined});
      this.report({kind: 'container', action: 'start', attributes: {}, observation: container.observation});
    }
    return {observation: container.observation};
  }

  private stop(container: FakeContainer, signal: string, how: 'stop' | 'kill'): TaskOutput {
    const {status} = container.observation;
    if (status === 'created' || status === 'exited') return {observation: container.observation};
    const exitCode = signal === 'SIGTERM' || signal === '15' ? 143 : 137;
    this.report({kind: 'container', action: 'kill', attributes: {signal}, observation: container.observation});
    this.move(container, {status: 'exited', pid: 0, exitCode, finishedAt: this.now(), stoppedByUser: true});
    this.report({kind: 'container', action: 'die', attributes: {exitCode: String(exitCode)}, observation: container.observation});
    if (how === 'stop') this.report({kind: 'container', action: 'stop', attributes: {}, observation: container.observation});
    return {observation: container.observation};
  }

  private turn(containerId: string, from: 'running' | 'paused', to: 'running' | 'paused', action: 'pause' | 'unpause'): TaskOutput {
    const container = this.container(containerId);
    if (container.observation.status === to) return {observation: container.observation};
    if (container.observation.status !== from) throw new CetusError('conflict', `Container ${containerId} is not ${from}`);
    this.move(container, {status: to});
    this.report({kind: 'container', action, attributes: {}, observation: container.observation});
    return {observation: container.observation};
  }

  /** Named by what was asked, not by the moment: a test that repeats it finds the same. */
  private commit(body: Extract<TaskBody, {kind: 'image.commit'}>): NodeImage {
    const {spec, observation} = this.container(body.containerId);
    const paused = body.pause && observation.status === 'running';
    if (paused) this.turn(body.containerId, 'running', 'paused', 'pause');
    const digest = (text: string): string => `sha256:${createHash('sha256').update(text).digest('hex')}`;
    const manifest = {mediaType: 'application/vnd.oci.image.manifest.v1+json', digest: digest(`manifest of ${spec.id} ${body.comment} ${JSON.stringify(body.config)}`), size: 500};
    const image: NodeImage = {
      imageId: digest(`${spec.id} ${body.comment} ${JSON.stringify(body.config)}`), manifest, resolvedDigest: manifest.digest, layers: [], size: 1000, references: [],
      config: {
        architecture: 'amd64', os: 'linux', rootfs: {type: 'layers', diff_ids: []}, created: body.created, author: body.author, container: spec.id, config: body.config, container_config: body.containerConfig,
        history: [{created: body.created, comment: body.comment}],
      },
    };
    this.images.set(image.imageId, image);
    if (paused) this.turn(body.containerId, 'paused', 'running', 'unpause');
    return image;
  }

  private remove(containerId: string, force: boolean): TaskOutput {
    const container = this.containers.get(containerId);
    if (!container) return {};
    if (container.observation.status === 'running' || container.observation.status === 'paused') {
      if (!force) throw new CetusError('conflict', `container ${containerId} is running`);
      this.stop(container, 'SIGKILL', 'kill');
    }
    this.containers.delete(containerId);
    for (const [id, exec] of this.execs) if (exec.containerId === containerId) this.execs.delete(id);
    return {};
  }

  async info(): Promise<NodeFacts> { this.reach(); return this.facts; }

  async inventory(): Promise<Inventory> {
    this.reach();
    const list = [...this.containers.values()];
    const live = list.filter(c => c.observation.status === 'running' || c.observation.status === 'paused');
    return structuredClone({
      containers: list.map(c => ({id: c.spec.id, observation: c.observation})), snapshots: list.map(c => c.spec.id), namespaces: live.map(c => c.spec.id),
      bridges: [...this.networks.values()], publishedPorts: live.flatMap(c => c.ports), volumes: [...this.volumes.keys()],
      images: [...this.images.keys()], execs: [...this.execs.keys()],
    });
  }

  async observe(containerId: string): Promise<ContainerObservation> { this.reach(); return structuredClone(this.container(containerId).observation); }
  async attach(containerId: string): Promise<Duplex> { return this.open('attach', containerId); }
  async dial(containerId: string, protocol: 'tcp' | 'udp', port: number): Promise<Duplex> { return this.open(`dial ${protocol}/${port}`, containerId); }
  async logs(containerId: string): Promise<Readable> { return this.open('logs', containerId); }
  async stats(containerId: string): Promise<Readable> { return this.open('stats', containerId); }
  async export(containerId: string): Promise<Readable> { return this.open('export', containerId); }
  async top(containerId: string): Promise<{Titles: string[]; Processes: string[][]}> {
    return {Titles: ['UID', 'PID', 'PPID', 'C', 'STIME', 'TTY', 'TIME', 'CMD'], Processes: [['root', String(this.container(containerId).observation.pid), '1', '0', '00:00', '?', '00:00:00', 'true']]};
  }
  async changes(containerId: string): Promise<{Path: string; Kind: number}[]> { this.container(containerId); return []; }
  async volumeUsage(volumeId: string): Promise<{size: number}> {
    this.reach();
    if (!this.volumes.has(volumeId)) throw new CetusError('notFound', `no such volume: ${volumeId}`);
    return {size: 0};
  }
  async usage(containerId: string): Promise<{sizeRw: number}> { this.reach(); this.container(containerId); return {sizeRw: 0}; }
  async statPath(containerId: string, path: string): Promise<string> {
    this.container(containerId);
    return Buffer.from(JSON.stringify({name: path.split('/').at(-1), size: 0, mode: 0o644, mtime: ZERO_TIME, linkTarget: ''})).toString('base64');
  }
  async getArchive(containerId: string, path: string): Promise<{stat: string; body: Readable}> {
    return {stat: await this.statPath(containerId, path), body: this.open('archive', containerId)};
  }
  async putArchive(containerId: string, _query: unknown, body: Readable): Promise<void> { this.container(containerId); body.resume(); }
  async resize(containerId: string): Promise<void> { this.container(containerId); }

  async putExec(execId: string, containerId: string, config: ExecObservation['config']): Promise<void> {
    this.reach();
    if (this.container(containerId).observation.status !== 'running') throw new CetusError('conflict', `Container ${containerId} is not running`);
    if (!this.execs.has(execId)) this.execs.set(execId, {id: execId, containerId, running: false, exitCode: null, pid: 0, config, canRemove: false});
  }
  async startExec(execId: string, query: {detach: boolean}): Promise<Duplex | null> {
    const exec = this.exec(execId);
    if (exec.exitCode !== null) throw new CetusError('conflict', `Error: Exec command ${execId} has already run`);
    Object.assign(exec, {exitCode: 0, canRemove: true});
    this.report({kind: 'exec', execId, containerId: exec.containerId, exitCode: 0});
    return query.detach ? null : this.open('exec', execId);
  }
  async observeExec(execId: string): Promise<ExecObservation> { return structuredClone(this.exec(execId)); }
  async resizeExec(execId: string): Promise<void> { this.exec(execId); }

  async *pull(request: {reference: string}): AsyncIterable<PullLine> {
    this.reach();
    const image = this.registry.get(request.reference);
    if (!image) throw new CetusError('notFound', `manifest for ${request.reference} not found: manifest unknown: manifest unknown`);
    const upToDate = this.images.has(image.imageId);
    this.images.set(image.imageId, image);
    yield {status: `Pulling from ${request.reference}`};
    yield {result: {image, upToDate}};
  }
  async *ensure(request: EnsureRequest): AsyncIterable<EnsureLine> {
    this.reach();
    this.ensured.push(structuredClone(request));
    const giver = this.peers().find((peer) => peer.reachable && request.peers.some((p) => p.nodeId === peer.facts.nodeId) && peer.images.has(request.imageId));
    const known = this.images.get(request.imageId);
    const image = known ?? giver?.images.get(request.imageId) ?? this.registry.get(request.reference ?? '');
    if (!image) throw new CetusError('unavailable', `no node gives ${request.manifest.digest}`);
    this.images.set(request.imageId, image);
    yield {status: 'Downloading', progressDetail: {current: image.size, total: image.size}, id: 'aaaaaaaaaaaa'};
    yield {result: {image, upToDate: known !== undefined, taken: known ? {peers: 0, registry: 0} : giver ? {peers: image.size, registry: 0} : {peers: 0, registry: image.size}, complaints: []}};
  }
  disk = {totalBytes: 0, freeBytes: 0};
  async heldImages(): Promise<NodeImages> {
    this.reach();
    return {images: [...this.images.values()].map(({imageId, manifest}) => ({account: DEFAULT_ACCOUNT, imageId, manifestDigest: manifest.digest})), disk: this.disk};
  }
  async *load(archive: Readable): AsyncIterable<LoadLine> {
    archive.resume();
    yield {result: {images: []}};
  }
  /** What registries answer; replace to script it. */
  ask: (question: RegistryQuestion, auth?: RegistryAuth) => RegistryAnswers[RegistryQuestion['kind']] = () => { throw new CetusError('unavailable', 'there are no registries here'); };
  async askRegistry<Q extends RegistryQuestion>(question: Q, auth: RegistryAuth | undefined): Promise<RegistryAnswers[Q['kind']]> {
    this.reach();
    return this.ask(question, auth) as RegistryAnswers[Q['kind']];
  }
  async *import(request: ImportRequest, archive: Readable | undefined): AsyncIterable<ImportLine> {
    this.reach();
    archive?.resume();
    const digest = (text: string): string => `sha256:${createHash('sha256').update(text).digest('hex')}`;
    const manifest = {mediaType: 'application/vnd.oci.image.manifest.v1+json', digest: digest(`manifest of import ${request.message}`), size: 500};
    const image: NodeImage = {
      imageId: digest(`import ${request.message} ${JSON.stringify(request.config)}`), manifest, resolvedDigest: manifest.digest, layers: [], size: 1000, references: [],
      config: {architecture: 'amd64', os: 'linux', rootfs: {type: 'layers', diff_ids: []}, created: request.created, config: request.config, history: [{created: request.created, comment: request.message}]},
    };
    this.images.set(image.imageId, image);
    if (request.url !== undefined) yield {status: `Downloading from ${request.url}`};
    yield {result: {image}};
  }
  async *push(request: PushRequest): AsyncIterable<PushLine> {
    this.reach();
    this.pushed.push(structuredClone(request));
    yield {status: 'Preparing', progressDetail: {}, id: 'aaaaaaaaaaaa'};
    yield {result: {digest: `sha256:${createHash('sha256').update(request.imageId).digest('hex')}`, size: 500, mediaType: request.manifest.mediaType}};
  }
  async save(): Promise<Readable> { return this.open('save', ''); }

  /** What its builds are said to have made; there is no engine behind it. */
  readonly built = new Map<string, NodeImage>();
  readonly builds: AgentBuilds = {
    prepare: async () => { this.reach(); return 'hold'; },
    release: async () => undefined,
    built: async (_hold, imageIds) => imageIds.map((imageId) => ({imageId, references: this.built.get(imageId)?.references ?? [], repoDigests: []})),
    call: async () => { throw new CetusError('unavailable', 'docker build needs dockerd (Debian\'s package docker.io) on this node'); },
    open: async () => this.open('build', 'hold'),
    usage: async () => ({BuildCache: [], BuilderSize: 0}),
    take: (_hold, images) => this.takeOver(images),
  };

  private async *takeOver(images: BuiltNames[]): AsyncGenerator<LoadLine> {
    this.reach();
    const taken = images.map(({imageId, references}) => {
      const image = this.built.get(imageId);
      if (!image) throw new CetusError('notFound', `No such image: ${imageId}`);
      return {...image, references};
    });
    for (const image of taken) this.images.set(image.imageId, image);
    yield {result: {images: taken}};
  }

  private open(what: string, id: string): Duplex {
    this.reach();
    return this.stream(what, id);
  }
  private reach(): void {
    if (!this.reachable) throw new CetusError('unavailable', `node ${this.facts.name} cannot be reached`);
  }
  private container(id: string): FakeContainer {
    const found = this.containers.get(id);
    if (!found) throw new CetusError('notFound', `No such container: ${id}`);
    return found;
  }
  private exec(id: string): ExecObservation {
    const found = this.execs.get(id);
    if (!found) throw new CetusError('notFound', `No such exec instance: ${id}`);
    return found;
  }
  private move(container: FakeContainer, part: Partial<ContainerObservation>): void {
    container.observation = {...container.observation, ...part, generation: container.observation.generation + 1};
  }
  private report(body: ReportBody): void {
    const report = structuredClone({...body, seq: this.reports.length + 1, at: this.now()}) as Report;
    this.reports.push(report);
    this.options.onReport?.(report);
  }
  private takeFailure(kind: TaskKind): ScriptedFailure | undefined {
    const found = this.failures.find(f => f.kind === kind);
    if (found) {
      found.times = (found.times ?? 1) - 1;
      this.failures = this.failures.filter(f => (f.times ?? 1) > 0);
    }
    return found;
  }
  private now(): string { return formatNs(this.clock.nowNs()); }
}
