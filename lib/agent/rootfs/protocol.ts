/**
 * Between the agent and a worker of this room: one order as a line of JSON on descriptor 3, tar on the worker's stdin or stdout, answers as lines
 * on descriptor 3.
 */
import type {WireError} from '../../base/errors';
import type {LoanOffer} from '../../schema/agent';
import type {FilesystemChange, PathStat} from '../../schema/rootfs';

/** What is mounted over a container's root. */
export interface ViewMount {
  /** Absolute, in the container. */
  destination: string;
  readOnly: boolean;
  /** On the node; of no use where the container runs. */
  source: string;
  /** Without the mounts below the source. */
  nonRecursive?: boolean;
}

/**
 * Where a container's files are. `place` is a directory of the node that the worker covers for itself; `layers` are directories, topmost first,
 * the first one being the container's own. `options` are those of its overlay; none where its root is that one directory.
 */
export type View =
  | {kind: 'tree'; path: string}
  | {kind: 'live'; pid: number; containerId: string; mounts: ViewMount[]; place: string}
  | {kind: 'still'; layers: string[]; options: string[]; writable: boolean; readOnlyRoot: boolean; mounts: ViewMount[]; place: string};

export type WorkerOrder =
  | {kind: 'stat'; view: View; path: string; container: string}
  | {kind: 'pack'; view: View; path: string; container: string}
  | {kind: 'export'; view: View}
  | {kind: 'unpack'; view: View; path: string; container: string; noOverwriteDirNonDir: boolean; readOnlyRoot: boolean; /** Everything is to belong to this one: Config.User. */ user?: string; /** The agent's, with the tar in it; stdin where there is none. */ descriptor?: number; /** Of whoever is at the other end of `descriptor`, with the tar's rest in it. */ loan?: LoanOffer}
  | {kind: 'changes'; upper: string; lower: string[]; place: string; /** What the runtime itself makes on its way to a start. */ made: string[]};

/** `stat` comes before the first byte of a tar, `ready` before the first one is read; `done` ends every order that did not fail. */
export type WorkerAnswer =
  | {stat: PathStat}
  | {ready: true; /** The agent's descriptor is held: nothing comes on stdin, and reading begins with a line from the agent, by which it says that it held it meanwhile, too. */ taken?: true; /** So is the lent one, and reading from it begins with LOAN_GOOD on the other. */ lent?: true}
  | {changes: FilesystemChange[]}
  | {done: true}
  | {failure: WireError};

export const CONTROL_FD = 3;
