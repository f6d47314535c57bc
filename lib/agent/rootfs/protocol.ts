/**
 * Between the agent and a worker of this room: one order as a line of JSON on descriptor 3, tar on the worker's stdin or stdout, one answer as a line
 * on descriptor 3. Roots are paths that the agent holds open (/proc/AGENT/fd/N) or has mounted.
 */
import type {WireError} from '../../base/errors';
import type {FilesystemChange, PathStat} from '../../schema/rootfs';

export type WorkerOrder =
  | {kind: 'stat'; root: string; path: string}
  | {kind: 'pack'; root: string; path: string}
  | {kind: 'export'; root: string}
  | {kind: 'unpack'; root: string; path: string; noOverwriteDirNonDir: boolean; owner?: {uid: number; gid: number}}
  | {kind: 'changes'; upper: string; lower?: string};

/** `stat` comes before the first byte of a tar; `done` ends every order that did not fail. */
export type WorkerAnswer =
  | {stat: PathStat}
  | {changes: FilesystemChange[]}
  | {done: true}
  | {failure: WireError};

export const CONTROL_FD = 3;
