/**
 * The parts an agent is made of, as it sees them: what lib/main hands to `createAgent`. Runtime, NodeNetworking and AgentImages have
 * their own files; here are the translation of Docker's configuration into OCI's (lib/agent/spec) and the way to the control plane.
 */
import type {Duplex} from 'node:stream';
import type {AssignmentAnswer, AssignmentQuestion, Heartbeat, HeartbeatAnswer, ReportBatch} from '../schema/agent';
import type {ContainerSpec, ResolvedMount} from '../schema/container';
import type {ExecConfig, HostConfig, ImageConfigFile} from '../schema/docker';
import type {NodeFacts} from '../schema/node';
import type {OciSpec, SnapshotMount} from './runtime/runtime';

/** Everything about the node that a container's OCI spec depends on beyond its own ContainerSpec. */
export interface SpecInput {
  spec: ContainerSpec;
  image: ImageConfigFile;
  /** spec.mounts in their order, volumes and binds as existing host paths; '' for tmpfs. */
  mounts: {mount: ResolvedMount; source: string}[];
  /** Files to bind over /etc/hosts, /etc/hostname, /etc/resolv.conf; '' = leave the image's own. */
  files: {hosts: string; hostname: string; resolvConf: string};
  hostname: string;
  /** What to bind over /dev/shm where it is shared (IpcMode shareable, host or container:ID); '' = a tmpfs of the container's own. */
  shm: string;
  /** '' = the node's own network namespace ("host"). The caller may replace the path in linux.namespaces after the call. */
  netnsPath: string;
  /** Mounts of the container's root file system, for user and group look-up while nothing runs. */
  rootMounts(): Promise<SnapshotMount[]>;
  /** Pid of a running container, for `container:ID` namespaces; `conflict` where it does not run. */
  pidOf(containerId: string): Promise<number>;
}

export interface SpecBuilder {
  container(input: SpecInput): Promise<OciSpec>;
  /** The process of an exec in a running container, whose root file system is at /proc/PID/root. */
  process(input: {spec: ContainerSpec; config: ExecConfig; pid: number}): Promise<OciSpec['process']>;
  /** OCI linux.resources, for `docker update` on a running container. */
  resources(hostConfig: HostConfig): Record<string, unknown>;
}

/** The agent's way to the control plane. Every call rejects with a CetusError and has its own deadline. */
export interface ReportSink {
  join(facts: NodeFacts): Promise<{nodeId: string}>;
  heartbeat(heartbeat: Heartbeat): Promise<HeartbeatAnswer>;
  /** Absent where nobody moves containers. */
  assignments?(question: AssignmentQuestion): Promise<AssignmentAnswer>;
  /** Everything up to `ackedSeq` is durable at the control plane. */
  reports(batch: ReportBatch): Promise<{ackedSeq: number}>;
  /** A connection to the Docker API as the account of this container, half-open both ways. Absent where there is no such way. */
  docker?(containerId: string): Promise<Duplex>;
  close(): Promise<void>;
}
