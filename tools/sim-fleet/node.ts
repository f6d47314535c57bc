/**
 * One simulated node: the real agent (lib/agent, all of it: task and report ledgers, supervisor, heartbeats, fencing, its HTTPS server and its link to the control
 * plane) over the runtime and the networking that live in memory, and images that are there as soon as they are asked for.
 */
import {createHash} from 'node:crypto';
import path from 'node:path';
import {type Agent, createAgent} from '../../lib/agent/agent';
import {connectControlPlane} from '../../lib/agent/control-plane';
import type {AgentImages} from '../../lib/agent/images/images';
import {createFakeNetworking} from '../../lib/agent/network/fake';
import type {SpecBuilder} from '../../lib/agent/parts';
import {createFakeRuntime} from '../../lib/agent/runtime/fake';
import type {TlsMaterial} from '../../lib/base/credentials';
import {CetusError} from '../../lib/base/errors';
import type {Log} from '../../lib/base/log';
import type {NodeImage} from '../../lib/schema/agent';
import type {NodeFacts} from '../../lib/schema/node';

export interface SimNodeOptions {
  /** Counts from 0; everything of the node follows from it. */
  number: number;
  controlPlane: string;
  /** The address that the agent listens on, of the machine's loopback network. */
  address: string;
  port: number;
  tls: TlsMaterial;
  dataDir: string;
  log: Log;
}

export const NODES_PER_RACK = 40;
const GiB = 2 ** 30;

export const nodeName = (number: number): string => `sim-${String(number).padStart(5, '0')}`;
export const nodeId = (number: number): string => `00000000-0000-4000-8000-${number.toString(16).padStart(12, '0')}`;
export const rackOf = (number: number): string => `r${Math.floor(number / NODES_PER_RACK)}`;

export class SimNode {
  readonly agent: Agent;
  private readonly networks = createFakeNetworking();
  private tables = 0;
  /** Resolves with the first join that was answered. */
  readonly joined: Promise<void>;

  constructor(private readonly options: SimNodeOptions) {
    const {number, controlPlane, tls, dataDir, log} = options;
    const link = connectControlPlane(controlPlane, tls);
    let hasJoined!: () => void;
    this.joined = new Promise((resolve) => { hasJoined = resolve; });
    this.agent = createAgent({
      facts: facts(number), runtime: createFakeRuntime(), network: {...this.networks, applyTable: async () => { this.tables += 1; }}, images: instantImages(), specs: PLAIN_SPECS,
      dataDir: path.join(dataDir, String(number)), log, bootId: 'simulated',
      controlPlane: {
        join: async (of) => {
          const answer = await link.join(of);
          hasJoined();
          return answer;
        },
        heartbeat: (beat) => link.heartbeat(beat), assignments: (question) => link.assignments!(question), reports: (batch) => link.reports(batch), close: () => link.close(),
      },
    });
  }

  async start(): Promise<void> {
    const {address, port, tls} = this.options;
    await this.agent.open();
    await this.agent.listen({host: address, port, tls});
  }

  /** Ids of what runs here. */
  running(): string[] {
    return [...this.agent.supervisor.units.values()].filter((unit) => unit.running).map((unit) => unit.id);
  }

  /** Messages that told it where other containers are. */
  get tablesHeard(): number { return this.tables; }

  /** For the control plane the same as the loss of its power, but that its connections are refused and not left without an answer. */
  stop(): Promise<void> {
    return this.agent.close();
  }
}

function facts(number: number): Omit<NodeFacts, 'bootGeneration'> {
  return {
    nodeId: nodeId(number), name: nodeName(number), platform: 'linux/amd64', architecture: 'x86_64', kernelVersion: '6.1.0', operatingSystem: 'simulated', osType: 'linux',
    cpus: 64, cpusetCpus: '0-63', cpusetMems: '0', memoryBytes: 256 * GiB, diskBytes: 4096 * GiB, pids: 1_000_000, cgroupVersion: 2, cgroupDriver: 'cgroupfs',
    containerdVersion: '', runcVersion: '', snapshotter: '', agentUrl: '', agentVersion: '0.1.0', labels: {rack: rackOf(number)},
    underlay: {address: `198.18.${number >> 8}.${number & 255}`, mtu: 1500},
  };
}

/** The fake runtime wants to know of a process what it is to do. */
const PLAIN_SPECS: SpecBuilder = {
  container: async ({spec}) => ({process: {args: [...spec.config.Entrypoint ?? [], ...spec.config.Cmd ?? []], terminal: spec.config.Tty === true}}),
  process: async ({config}) => ({args: config.Cmd ?? [], terminal: config.Tty === true}),
  resources: (hostConfig) => ({memory: {limit: hostConfig.Memory}}),
};

const digestOf = (text: string): string => `sha256:${createHash('sha256').update(text).digest('hex')}`;

/** Whatever it is called, it exists, weighs nothing, and has no layers. */
export function imageNamed(reference: string): NodeImage {
  const manifest = {mediaType: 'application/vnd.oci.image.manifest.v1+json', digest: digestOf(`manifest of ${reference}`), size: 400};
  return {
    imageId: digestOf(`config of ${reference}`), manifest, resolvedDigest: manifest.digest, references: [], layers: [], size: 0,
    config: {architecture: 'amd64', os: 'linux', rootfs: {type: 'layers', diff_ids: []}, config: {}, created: '2026-01-01T00:00:00Z'},
  };
}

function instantImages(): AgentImages {
  const held = new Map<string, {account: string; imageId: string; manifestDigest: string}>();
  const hold = (account: string, imageId: string, manifestDigest: string): void => void held.set(`${account}/${imageId}`, {account, imageId, manifestDigest});
  const none = (): never => { throw new CetusError('invalid', 'a simulated node has no files'); };
  return {
    async *pull({account, reference}) {
      const image = imageNamed(reference);
      hold(account, image.imageId, image.manifest.digest);
      yield {result: {image, upToDate: false}};
    },
    async *ensure({account, imageId, manifest}) {
      hold(account, imageId, manifest.digest);
      yield {result: {image: {...imageNamed(''), imageId, manifest, resolvedDigest: manifest.digest}, upToDate: false, taken: {peers: 0, registry: 0}, complaints: []}};
    },
    load: none, import: none, push: none, askRegistry: none, save: none, commit: none,
    prepare: async () => ({parentSnapshot: '', config: imageNamed('').config}),
    async remove(imageId, account) { held.delete(`${account}/${imageId}`); },
    list: async () => [...new Set([...held.values()].map(({imageId}) => imageId))],
    lacking: async () => [],
    held: async () => ({images: [...held.values()], disk: {totalBytes: 4096 * GiB, freeBytes: 4000 * GiB}}),
    serving: {size: none, enter: none, read: none},
  };
}
