/**
 * Reads what a container uses: some twenty small files of the kernel's, 0.3 ms together. Synchronously, since none of them waits for a disk and a
 * thread's turn for each would cost more than the reading. Answers undefined for a container whose groups are gone: it has just ended.
 */
import fs from 'node:fs';
import os from 'node:os';
import {usageV1} from './cgroup-v1';
import {usageV2} from './cgroup-v2';
import {directoryOf, type Hierarchies, hierarchies} from './places';
import {type InterfaceUsage, interfaces, machineCpu, type MachineUsage, type ReadFile, type Usage} from './usage';

export interface Measured { usage: Usage; networks: Record<string, InterfaceUsage> }

/** What the collector asks of the node; a fake stands in for it where nothing runs. */
export interface Meter {
  machine(): MachineUsage;
  /** `counted`: the interfaces too, which a container in the node's own network has none of. */
  container(id: string, pid: number, counted: boolean): Measured | undefined;
}

/** A hundred containers measured at the same moment share one look at the machine: it lies apart by a hundredth of the interval at most. */
const SAME_MOMENT_MS = 10;

/** Where nothing is counted, every container looks as one that does not run. */
export const noMeter: Meter = {machine: () => ({systemCpu: 0n, onlineCpus: 0, memory: 0n}), container: () => undefined};

export class KernelMeter implements Meter {
  private at: Hierarchies | undefined;
  private lately: {usage: MachineUsage; atMs: number} | undefined;
  private readonly memory = BigInt(os.totalmem());

  /** `cgroupParent` as the specs have it: container ID's groups are at /PARENT/ID. */
  constructor(private readonly cgroupParent: string) {}

  machine(): MachineUsage {
    const nowMs = performance.now();
    if (this.lately && nowMs - this.lately.atMs < SAME_MOMENT_MS) return this.lately.usage;
    const usage = {...machineCpu(fs.readFileSync('/proc/stat', 'latin1')), memory: this.memory};
    this.lately = {usage, atMs: nowMs};
    return usage;
  }

  container(id: string, pid: number, counted: boolean): Measured | undefined {
    const at = (this.at ??= hierarchies(fs.readFileSync('/proc/self/mountinfo', 'utf8')));
    const directory = (controller: string): string | undefined => directoryOf(at, controller, `/${this.cgroupParent}/${id}`);
    const first = directory('memory') ?? directory('cpuacct');
    if (first === undefined || !fs.existsSync(first)) return undefined;
    const reader = (controller: string): ReadFile => {
      const dir = directory(controller);
      return (name) => (dir === undefined ? undefined : read(`${dir}/${name}`));
    };
    const networks = counted ? interfaces(read(`/proc/${pid}/net/dev`) ?? '') : {};
    return {usage: at.version === 2 ? usageV2(reader('')) : usageV1(reader), networks};
  }
}

function read(file: string): string | undefined {
  try {
    return fs.readFileSync(file, 'latin1');
  } catch (err) {
    // ENODEV: the group was removed while its file was open; ENOTSUP: the kernel was built, or booted, without this counter.
    if (['ENOENT', 'ENODEV', 'ENOTSUP', 'EINVAL', 'ESRCH'].includes((err as NodeJS.ErrnoException).code ?? '')) return undefined;
    throw err;
  }
}
