/** What every verb works with. Made once by index.ts; nothing here is bound to a caller. */
import type {Clock} from '../base/clock';
import type {Ids} from '../base/ids';
import type {Log} from '../base/log';
import type {Fleet} from '../fleet/fleet';
import type {Moray} from '../moray/moray';
import type {ChainName, ChainParams, ChainResult} from '../schema/chains';
import type {Workflow} from '../workflow/chain';
import type {ContainerViews} from './containers/views';
import type {EventLog} from './events';
import type {Caller} from './verbs';

export interface DatacenterConfig {
  /** The datacenter's identity, for ever: `docker info`'s ID. */
  id: string;
  /** Name and version that `docker info` and `docker version` show. */
  name: string;
  version: string;
  /** --network host. */
  allowHostNetwork: boolean;
  /** --privileged, host namespaces, devices. */
  allowPrivileged: boolean;
  /** Host paths as bind sources: none, those below one of the prefixes, all. */
  allowBinds: 'off' | string[] | 'all';
  /** Unix sockets on which this endpoint itself answers: asked for as a bind they are the datacenter, not a path of a node. */
  ownSockets?: string[];
  /** Containers without a limit reserve this. Default: nothing. */
  defaultMemoryBytes?: number;
  /** A cpu limit is a ceiling that is rarely reached: this many nano-cpus of limit reserve one. Default 8. */
  cpuOvercommit?: number;
  /** How long /events remembers. Default 24 h. */
  eventRetentionMs?: number;
  /** Other endpoints answer for the same datacenter: what they have answered is shown here at once. */
  amongOthers?: boolean;
  /** Shown by `docker info`. */
  postgresVersion?: string;
}

export interface Services {
  moray: Moray;
  fleet: Fleet;
  workflow: Workflow;
  log: Log;
  clock: Clock;
  ids: Ids;
  config: DatacenterConfig;
}

export interface Context extends Services {
  views: ContainerViews;
  events: EventLog;
  /** Runs a chain for the caller; its params and result are those of lib/schema/chains.ts. */
  run<N extends ChainName>(caller: Caller, workflow: N, params: ChainParams<N>, more?: {secrets?: unknown; signal?: AbortSignal; lockWaitMs?: number; onProgress?(message: unknown): void; onWaiting?(): void}): Promise<ChainResult<N>>;
}
