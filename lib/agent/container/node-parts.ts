/** What a unit uses of the node. Built once by createAgent. */
import type {Clock} from '../../base/clock';
import type {Ids} from '../../base/ids';
import type {Log} from '../../base/log';
import type {Fencing} from '../fencing/fencing';
import type {AgentImages} from '../images/images';
import type {ReportLedger} from '../ledger/reports';
import type {NodeNetworking} from '../network/network';
import type {SpecBuilder} from '../parts';
import type {Runtime} from '../runtime/runtime';
import type {ContainerFiles} from '../rootfs/files';
import type {NodeStore} from '../store';
import type {Volumes} from '../volumes/volumes';
import type {ContainerUnit} from './unit';

export interface NodeParts {
  runtime: Runtime;
  network: NodeNetworking;
  images: AgentImages;
  specs: SpecBuilder;
  volumes: Volumes;
  files: ContainerFiles;
  store: NodeStore;
  reports: ReportLedger;
  fencing: Fencing;
  clock: Clock;
  ids: Ids;
  log: Log;
  nodeName: string;
  /** Of the kernel: another one means that the machine was rebooted. */
  bootId: string;
  /** Pid of a running container. */
  pidOf(containerId: string): Promise<number>;
  /** Where the /dev/shm of a container that shares its IPC is on this node; `conflict` where it does not share it. */
  shmOf(containerId: string): string;
  /** One health check, as an exec whose first bytes of output are kept. */
  probe(unit: ContainerUnit, args: string[], timeoutMs: number, signal: AbortSignal): Promise<{exitCode: number; output: string}>;
  /** The container's processes are gone: so are its execs. */
  execsEnded(containerId: string): void;
}
