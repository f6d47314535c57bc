/**
 * The agent of a compute node, put together. `open` takes up what earlier lives left and begins to report; `listen` serves the protocol of
 * lib/schema/agent.ts; `close` lets go of everything without touching a container.
 */
import {readFileSync} from 'node:fs';
import {join} from 'node:path';
import {type Clock, systemClock} from '../base/clock';
import {type Ids, systemIds} from '../base/ids';
import type {InternalAddress} from '../base/listen';
import type {Log} from '../base/log';
import type {Peer} from '../base/peer';
import type {Task, TaskAnswer, TaskOutput} from '../schema/agent';
import type {NodeFacts} from '../schema/node';
import type {BuildEngines} from './build/engines';
import {DockerSockets} from './docker-socket/sockets';
import {linkedSpec} from './container/launch';
import {Execs} from './exec/execs';
import {Fencing} from './fencing/fencing';
import {type Guard, memoryGuard} from './fencing/guard-link';
import {bootTimeMs} from './fencing/lease-file';
import {HeartbeatLoop} from './heartbeat';
import type {AgentImages} from './images/images';
import {ReportLedger} from './ledger/reports';
import {answered, TaskLedger} from './ledger/tasks';
import type {NodeNetworking} from './network/network';
import type {ReportSink, SpecBuilder} from './parts';
import {type Recovery, recover} from './recover';
import type {Runtime} from './runtime/runtime';
import {AgentServer} from './server/server';
import {StatsCollector} from './stats/collector';
import {type Meter, noMeter} from './stats/meter';
import {NodeStore} from './store';
import {ContainerFiles} from './rootfs/files';
import {RootfsHelper} from './rootfs/helper';
import {Supervisor, type SupervisorParts} from './supervisor';
import {Volumes} from './volumes/volumes';

export interface AgentOptions {
  /** `bootGeneration` and, once listening, `agentUrl` are filled in here. */
  facts: Omit<NodeFacts, 'bootGeneration'>;
  runtime: Runtime;
  network: NodeNetworking;
  images: AgentImages;
  specs: SpecBuilder;
  /** What containers use. Absent: nothing is counted, and each looks as one that does not run. */
  meter?: Meter;
  /** Absent: this node builds no images. */
  build?: BuildEngines;
  dataDir: string;
  log: Log;
  /** Absent: reports are kept until an agent with a control plane opens the same directory. */
  controlPlane?: ReportSink;
  /** Refuses callers whose certificate is trusted no more. Absent: what the handshake accepts is good. */
  admit?(peer: Peer): void;
  clock?: Clock;
  ids?: Ids;
  /** Of what is marked for rescheduling. Absent: nobody watches beside the agent itself, and it is killed through the runtime. */
  fencing?: {guard: Guard; kill(ids: string[]): Promise<void>};
  /** CLOCK_BOOTTIME, in ms. */
  bootTimeMs?(): number;
  /** Of the kernel's boot; injectable for tests of a reboot. */
  bootId?: string;
}

export interface Agent {
  open(): Promise<Recovery>;
  /** Answers the address in the form of NodeFacts.agentUrl. Joins the control plane afterwards. */
  listen(at: InternalAddress): Promise<string>;
  close(): Promise<void>;
  /** Joins the control plane and begins to deliver reports; `listen` does it when the address is known. */
  report(): void;
  /** One task, through the ledger: what POST /v1/tasks calls. */
  task(task: Task): Promise<TaskAnswer>;
  /** Resolves when every report has been acknowledged. */
  settled(): Promise<void>;
  readonly supervisor: Supervisor;
  readonly facts: NodeFacts;
}

export function createAgent(options: AgentOptions): Agent {
  const clock = options.clock ?? systemClock;
  const ids = options.ids ?? systemIds;
  const log = options.log.child({component: 'agent'});
  const store = new NodeStore(options.dataDir);
  const facts: NodeFacts = {...options.facts, bootGeneration: store.nextBootGeneration()};
  let fencedLife = 0;
  const reports = new ReportLedger(join(options.dataDir, 'ledger', 'reports.log'), clock, log, {nodeId: () => facts.nodeId, bootGeneration: () => facts.bootGeneration});
  const tasks = new TaskLedger(join(options.dataDir, 'ledger', 'tasks.log'));
  const {runtime, network, images, specs, controlPlane} = options;
  const sockets = new DockerSockets({dataDir: options.dataDir, log, clock, ...(controlPlane?.docker ? {dial: (id: string) => controlPlane.docker!(id)} : {})});
  const rootfs = new RootfsHelper();
  const volumes = new Volumes(options.dataDir, {sockets, rootfs});
  const files = new ContainerFiles({helper: rootfs, lend: (spec, holder) => volumes.lend(spec, holder), dirOf: (id) => store.dir(id), dataDir: options.dataDir, clock});
  const execs = new Execs({
    runtime, specs, store, reports, clock, log, newId: () => ids.hex64(),
    host: (id) => {
      const unit = supervisor.unit(id);
      return {spec: linkedSpec(unit.spec, unit.record.launch?.links), status: unit.observation.status, pid: unit.observation.pid};
    },
  });
  const fencing = new Fencing({
    clock, log, guard: options.fencing?.guard ?? memoryGuard(), nowMs: options.bootTimeMs ?? bootTimeMs,
    // What the runtime may still be making is in the record as launching.
    running: () => supervisor.marked.filter((unit) => unit.running || unit.record.launching).map((unit) => unit.id),
    kill: options.fencing?.kill ?? (async (marked) => {
      await Promise.all(marked.map(async (id) => {
        await runtime.kill(id, '', 9, true).catch(() => undefined);
        await runtime.resume(id).catch(() => undefined);
      }));
    }),
  });
  const parts: SupervisorParts = {
    runtime, network, images, specs, volumes, files, store, reports, fencing, clock, ids, log, execs,
    nodeName: facts.name, bootId: options.bootId ?? kernelBootId(),
    pidOf: (id) => supervisor.pidOf(id),
    shmOf: (id) => supervisor.shmOf(id),
    probe: (unit, args, timeoutMs, signal) => execs.probe(unit.id, args, timeoutMs, signal),
    execsEnded: (id) => execs.containerEnded(id),
  };
  const supervisor = new Supervisor(parts);
  const run = (task: Task): Promise<TaskAnswer> => {
    const execute = (): Promise<TaskOutput> => supervisor.execute(task.body, `${task.jobId}/${task.step}`);
    // A table says by itself what is old in it, and comes so often that it would push others' answers out.
    return task.body.kind === 'network.table' ? answered(task, execute) : tasks.run(task, execute);
  };
  const stats = new StatsCollector({
    meter: options.meter ?? noMeter, clock,
    look: (id) => {
      const unit = supervisor.units.get(id);
      return unit && !unit.gone ? {id, running: unit.running, pid: unit.observation.pid, ownNetwork: unit.spec.hostConfig.NetworkMode !== 'host'} : undefined;
    },
  });
  const server = new AgentServer({supervisor, stats, execs, task: run, parts, facts: () => facts, fencedLife: () => fencedLife, build: options.build, log, ...(options.admit ? {admit: options.admit} : {})});
  const heartbeat = controlPlane && new HeartbeatLoop({
    sink: controlPlane, clock, log, facts: () => facts, reportSeq: () => reports.lastSeq, running: () => supervisor.running,
    leaseClockMs: () => fencing.nowMs(),
    renewed: (sentMs, answer) => fencing.renewed(sentMs, answer),
    fenced: async () => {
      // From here on nobody takes this life for alive; what it runs is stopped before the next one joins, and what is still on its way to it is not done.
      fencedLife = facts.bootGeneration;
      await fencing.lifeOver();
      facts.bootGeneration = store.nextBootGeneration();
    },
    assign: () => assign(),
    joined: (nodeId) => {
      fencing.joined();
      facts.nodeId = nodeId;
      reports.begin(controlPlane);
    },
  });
  /** What went elsewhere is taken away before anything marked is started. */
  const assign = async (): Promise<void> => {
    const known = [...supervisor.units.keys()];
    if (!supervisor.marked.length || !controlPlane?.assignments) return fencing.assignedTo([]);
    const {own, moved} = await controlPlane.assignments({nodeId: facts.nodeId, bootGeneration: facts.bootGeneration, containers: known});
    for (const containerId of moved) {
      log.warn({containerId}, 'a container was started elsewhere while this node was away: it is removed here');
      await supervisor.execute({kind: 'container.remove', containerId, force: true}, `moved/${containerId}`);
    }
    const settled = new Set([...own, ...moved]);
    fencing.assignedTo(known.filter((id) => !settled.has(id)));
  };
  const closing = new AbortController();
  let following: Promise<void> = Promise.resolve();

  return {
    supervisor, facts, task: run,
    async open() {
      await runtime.open();
      await network.open();
      const version = await runtime.version();
      Object.assign(facts, {containerdVersion: version.version, runcVersion: version.runc, snapshotter: version.snapshotter});
      // Before anything is compared: an exit from now on is an event, one before it is a state.
      following = supervisor.follow(closing.signal).catch((err: unknown) => {
        if (!closing.signal.aborted) log.fatal({err}, 'the runtime\'s events ended');
      });
      const recovery = await recover(supervisor, parts);
      fencing.marks(new Set(supervisor.marked.map((unit) => unit.id)));
      fencing.begin();
      return recovery;
    },
    async listen(at) {
      facts.agentUrl = await server.listen(at);
      heartbeat?.begin();
      return facts.agentUrl;
    },
    report: () => heartbeat?.begin(),
    settled: () => reports.settled(),
    async close() {
      closing.abort(new Error('the agent closes'));
      await heartbeat?.close();
      await fencing.close();
      // In one turn with the server's end, so that nobody comes in between.
      supervisor.cutClients();
      execs.cutClients();
      files.close();
      await server.close();
      await sockets.close();
      await options.build?.close();
      await controlPlane?.close();
      await reports.close();
      execs.suspend();
      await supervisor.suspend();
      await following;
      tasks.close();
      volumes.close();
      await network.close();
      await runtime.close();
    },
  };
}

function kernelBootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
}
