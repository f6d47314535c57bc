/** An agent over fakes, as tests of this room need it: one directory, one fake runtime, any number of agent lives on them. */
import {mkdtempSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import type {Readable} from 'node:stream';
import type {Clock} from '../../lib/base/clock';
import {systemClock} from '../../lib/base/clock';
import {silentLog} from '../../lib/base/log';
import {type Agent, createAgent} from '../../lib/agent/agent';
import {CetusError} from '../../lib/base/errors';
import type {CommitRequest} from '../../lib/agent/images/commit';
import type {AgentImages} from '../../lib/agent/images/images';
import {createFakeNetworking, type FakeNetworking} from '../../lib/agent/network/fake';
import type {ReportSink, SpecBuilder} from '../../lib/agent/parts';
import {createFakeRuntime, type FakeRuntime} from '../../lib/agent/runtime/fake';
import type {NodeImage, Report, Task, TaskBody, TaskOutput} from '../../lib/schema/agent';
import type {ContainerSpec} from '../../lib/schema/container';
import type {Config, HostConfig} from '../../lib/schema/docker';
import type {NodeFacts} from '../../lib/schema/node';

/** Just enough of a spec for the fake runtime: the arguments. */
export const plainSpecs: SpecBuilder = {
  container: async ({spec}) => ({process: {args: [...(spec.config.Entrypoint ?? []), ...(spec.config.Cmd ?? [])], terminal: spec.config.Tty === true}}),
  process: async ({config}) => ({args: config.Cmd ?? [], terminal: config.Tty === true}),
  resources: (hostConfig) => ({memory: {limit: hostConfig.Memory}}),
};

export const testImages = {
  prepare: async () => ({parentSnapshot: '', config: {architecture: 'amd64', os: 'linux', rootfs: {type: 'layers', diff_ids: []}}}),
  remove: async () => undefined,
  /** A test takes the place of this. */
  commit: async (_request: CommitRequest): Promise<NodeImage> => { throw new CetusError('internal', 'no image is made here'); },
  list: async () => [],
  lacking: async () => [],
  // Every archive turns out to be none, as soon as its first bytes are here.
  async *load(archive: Readable) {
    for await (const _chunk of archive) throw new CetusError('invalid', 'invalid archive: not a tar');
  },
} as unknown as AgentImages;

export const testFacts = (): Omit<NodeFacts, 'bootGeneration'> => ({
  nodeId: 'n1', name: 'node-1', platform: 'linux/amd64', architecture: 'amd64', kernelVersion: '6', operatingSystem: 'test', osType: 'linux', cpus: 2, memoryBytes: 1e9,
  diskBytes: 1e9, pids: 1000, cgroupVersion: 1, cgroupDriver: 'cgroupfs', containerdVersion: '', runcVersion: '', snapshotter: '', agentUrl: 'unix:///none', agentVersion: '0', labels: {},
});

/** A control plane that remembers what it was told, and can be made deaf. */
export class RecordingSink implements ReportSink {
  readonly reports_: Report[] = [];
  deaf = false;
  async join(): Promise<{nodeId: string}> { return {nodeId: 'n1'}; }
  async heartbeat(): Promise<{leaseMs: number}> { return {leaseMs: 60_000}; }
  async reports({reports}: {reports: Report[]}): Promise<{ackedSeq: number}> {
    if (this.deaf) throw new Error('deaf');
    for (const report of reports) if (report.seq > (this.reports_.at(-1)?.seq ?? 0)) this.reports_.push(report);
    return {ackedSeq: this.reports_.at(-1)!.seq};
  }
  async close(): Promise<void> {}
  actions(): string[] {
    return this.reports_.map((report) => (report.kind === 'container' ? report.action : 'exec'));
  }
}

export class TestNode {
  readonly dataDir = mkdtempSync(join(tmpdir(), 'cetus-agent-'));
  readonly sink = new RecordingSink();
  readonly network: FakeNetworking = createFakeNetworking();
  readonly runtime: FakeRuntime;
  agent!: Agent;
  private jobs = 0;

  constructor(readonly clock: Clock = systemClock) {
    this.runtime = createFakeRuntime({clock});
  }

  async boot(bootId = 'boot-1'): Promise<this> {
    this.agent = createAgent({
      facts: testFacts(), runtime: this.runtime, network: this.network, images: testImages, specs: plainSpecs, dataDir: this.dataDir, log: silentLog(),
      controlPlane: this.sink, clock: this.clock, bootId,
    });
    await this.agent.open();
    return this;
  }

  get socketPath(): string {
    return join(this.dataDir, 'agent.sock');
  }

  async listen(): Promise<string> {
    return await this.agent.listen({socketPath: this.socketPath});
  }

  async task(body: TaskBody, job = `job-${(this.jobs += 1)}`): Promise<TaskOutput> {
    return await this.agent.supervisor.execute(body, `${job}/step`);
  }

  async create(id: string, cmd: string[], more: {config?: Config; hostConfig?: HostConfig; spec?: Partial<ContainerSpec>} = {}): Promise<void> {
    await this.task({kind: 'container.create', volumes: [], spec: makeSpec(id, cmd, more)});
  }

  async start(id: string, job?: string): Promise<void> {
    await this.task({kind: 'container.start', containerId: id, networks: [], attachments: [], ports: []}, job);
  }

  status(id: string): string {
    return this.agent.supervisor.unit(id).observation.status;
  }

  async end(): Promise<void> {
    await this.agent.close();
    for (const {id} of await this.runtime.list()) await this.runtime.kill(id, '', 9).catch(() => undefined);
    rmSync(this.dataDir, {recursive: true, force: true});
  }
}

export function makeSpec(id: string, cmd: string[], more: {config?: Config; hostConfig?: HostConfig; spec?: Partial<ContainerSpec>} = {}): ContainerSpec {
  return {
    id, account: 'default', name: id, image: {id: 'sha256:1', reference: 'busybox', manifestDigest: 'sha256:2'}, config: {Cmd: cmd, ...more.config},
    hostConfig: more.hostConfig ?? {}, logConfig: {Type: 'json-file'}, mounts: [], networkMode: 'none', createdAt: '2026-01-01T00:00:00Z', ...more.spec,
  };
}

export function task(body: TaskBody, more: Partial<Task> = {}): Task {
  return {jobId: 'j1', step: 's', epoch: 1, requestId: 'r', body, ...more};
}

export async function until(what: string, test: () => boolean | Promise<boolean>, ms = 30_000): Promise<void> {
  const end = Date.now() + ms;
  while (!(await test())) {
    if (Date.now() > end) throw new Error(`not within ${ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}
