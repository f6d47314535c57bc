/** What the node remembers of a container beside its spec: the last line of state.log, written before anybody is told. Only its own unit writes it. */
import {ZERO_TIME} from '../../base/clock';
import type {NodeNetwork} from '../../schema/agent';
import type {ContainerObservation, NetworkAttachment, PublishedPort, ResolvedLink} from '../../schema/container';

/** What the last start brought with it: enough to start again without asking anybody. */
export interface Launch { networks: NodeNetwork[]; attachments: NetworkAttachment[]; ports: PublishedPort[]; links?: ResolvedLink[] }

export interface ContainerRecord {
  observation: ContainerObservation;
  /** What was last asked for by a person; the restart policy works towards it. */
  desired: 'running' | 'stopped';
  launch: Launch | null;
  /** Delay before the last restart by policy; 0 = none since it last ran for ten seconds. */
  backoffMs: number;
  /** A process may have been started that `observation` does not know yet. */
  launching: boolean;
  /** Removal has begun and is finished by whoever finds this. */
  removing: boolean;
  /** jobId/step of the task that made the last change: its repetition finds its own work done and says so. */
  task: string;
  /** It may be started elsewhere once this node is fenced: runs under the node's lease only. */
  reschedule?: boolean;
  /** The machine's boot in which the container last ran. */
  bootId: string;
}

export function newRecord(containerId: string): ContainerRecord {
  return {
    observation: {
      containerId, generation: 1, status: 'created', pid: 0, exitCode: 0, error: '', oomKilled: false,
      startedAt: ZERO_TIME, finishedAt: ZERO_TIME, restartCount: 0,
    },
    desired: 'stopped', launch: null, backoffMs: 0, launching: false, removing: false, task: '', bootId: '',
  };
}
