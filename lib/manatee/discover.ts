/**
 * Where the primary is, for clients and operators: reads ZooKeeper, writes nothing, announces nothing.
 *
 * What is told never goes back to an older generation. Without ZooKeeper the last that was known stays true as far as anybody can say: a healthy primary
 * goes on for as long as its own lease does, and to whom it is closed a client sees for itself. So nobody waits for ZooKeeper who has been told once.
 */
import {CetusError} from '../base/errors';
import type {Log} from '../base/log';
import type {Monotonic} from './coordination';
import {monotonic} from './monotonic';
import type {ClusterState} from './state';
import {Contact} from './zookeeper/contact';
import {nodesUnder} from './zookeeper/coordination';
import type {Session} from './zookeeper/session';
import {decodeState} from './zookeeper/stored';

export interface WatchOptions {
  /** host:port,host:port */
  servers: string;
  /** The cluster's node. */
  path: string;
  /** Default: 6000. A server that stalls is left after half of it. */
  sessionTimeoutMs?: number;
  clock?: Monotonic;
  log: Log;
}

export interface KnownState {
  state: ClusterState;
  /** The node's version: what a declaration would be made against. */
  version: number;
}

export interface StateWatch {
  /** The newest; undefined before the first, or where there is no cluster. */
  known(): KnownState | undefined;
  /** A server has been asked since the last connection, and answered. */
  inContact(): boolean;
  close(): Promise<void>;
}

const SESSION_TIMEOUT_MS = 6000;

/** `onState` comes with each newer state, `onContact` when contact was made or lost. A session that expires is followed by another. */
export function watchState(options: WatchOptions, onState: (known: KnownState) => void, onContact: (inContact: boolean) => void = () => undefined): StateWatch {
  const {state: path} = nodesUnder(options.path);
  const {log} = options;
  let known: (KnownState & {created: number}) | undefined;
  let inContact = false;
  const tell = (now: boolean): void => {
    if (now === inContact) return;
    inContact = now;
    log.info({path}, now ? 'in contact with ZooKeeper' : 'lost contact with ZooKeeper; what is known stays');
    onContact(now);
  };

  const look = async (session: Session): Promise<void> => {
    const node = await session.read(path, true);
    if (node) take(decodeState(path, node.data), node.version, node.created);
    tell(session.connected());
  };
  const take = (state: ClusterState, version: number, created: number): void => {
    const before = known?.state.generation ?? 0;
    // A server may be behind the one before it. A node that was made anew begins at version 0.
    if (state.generation < before || (state.generation === before && (created < known!.created || (created === known!.created && version <= known!.version)))) {
      if (created > (known?.created ?? created)) log.error({path, generation: state.generation, known: before}, 'the cluster\'s state was made anew with an older generation: not followed');
      return;
    }
    known = {state, version, created};
    onState({state, version});
  };

  // The beat asks as well: it finds a server that stalls, and would find what a watch had not told.
  const contact = new Contact({...options, sessionTimeoutMs: options.sessionTimeoutMs ?? SESSION_TIMEOUT_MS, clock: options.clock ?? monotonic, beat: (session) => look(session).catch(report)});
  const report = (err: unknown): void => {
    if (contact.connected()) log.warn({err}, 'reading the cluster\'s state');
  };
  contact.onChange(() => {
    // Connecting and each watch say so once; reads of one session are answered in their order.
    if (contact.connected()) void look(contact.session()).catch(report);
    else tell(false);
  });
  return {
    known: () => known && {state: known.state, version: known.version},
    inContact: () => inContact,
    close: () => contact.close(),
  };
}

export interface PrimaryAddress {host: string; port: number; generation: number}

export interface Discovery {
  /** The newest known, at once; before there is one it is waited for. Throws `unavailable`, and says whether ZooKeeper or the cluster is missing. */
  primary(): Promise<PrimaryAddress>;
  /** Another generation, not older; the primary may be the same. */
  onChange(listener: (primary: PrimaryAddress) => void): () => void;
  close(): Promise<void>;
}

export interface DiscoveryOptions extends WatchOptions {
  /** How long `primary()` waits before anything is known. Default: 2000. */
  waitMs?: number;
}

export function createDiscovery(options: DiscoveryOptions): Discovery {
  const {waitMs = 2000, clock = monotonic} = options;
  const listeners = new Set<(primary: PrimaryAddress) => void>();
  const first = new AbortController();
  let address: PrimaryAddress | undefined;
  const watch = watchState(options, ({state}) => {
    if (state.generation === address?.generation) return;
    address = {host: state.primary.host, port: state.primary.port, generation: state.generation};
    first.abort();
    for (const listener of [...listeners]) listener(address);
  });
  return {
    async primary() {
      if (!address) await clock.sleep(waitMs, first.signal);
      if (address) return address;
      throw new CetusError('unavailable', watch.inContact() ? `there is no database cluster at ${options.path} yet` : `ZooKeeper at ${options.servers} does not say where the database is`);
    },
    onChange(listener) {
      listeners.add(listener);
      return () => { listeners.delete(listener); };
    },
    async close() {
      listeners.clear();
      first.abort();
      await watch.close();
    },
  };
}
