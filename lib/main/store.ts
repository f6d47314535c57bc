/**
 * The store as the configuration names it: one Postgres at an address, or a cluster, whose primary is asked of ZooKeeper. Joins manatee's discovery to moray,
 * which do not know each other.
 */
import type {Log} from '../base/log';
import {readPassword} from '../base/password-file';
import type {Discovery} from '../moray/primary';
import type {ClusterStore, EndpointConfig} from './config';

/** The database and the role that a cluster makes for its clients. */
export const CLUSTER_DATABASE = 'cetus';
export const CLUSTER_USER = 'cetus';

export interface Store { url: string | Discovery; close(): Promise<void> }

export async function storeOf(config: Pick<EndpointConfig, 'postgresUrl' | 'store'>, log: Log): Promise<Store> {
  if (config.postgresUrl !== undefined) return {url: config.postgresUrl, close: () => Promise.resolve()};
  const {zookeeper, database, user, passwordFile} = config.store!;
  const password = readPassword(passwordFile);
  // Whoever has one Postgres need not have a client of ZooKeeper in memory.
  const {createDiscovery} = await import('../manatee/discover.js');
  const discovery = createDiscovery({...zookeeper, log: log.child({component: 'discovery'})});
  return {
    url: {
      primary: async () => {
        const {host, port, generation} = await discovery.primary();
        return {url: urlOf({host, port, database, user, password}), generation};
      },
      onChange: (listener) => discovery.onChange(() => listener()),
    },
    close: () => discovery.close(),
  };
}

export function urlOf(at: {host: string; port: number; database: string; user: string; password: string}): string {
  const host = at.host.includes(':') ? `[${at.host}]` : at.host;
  return `postgres://${encodeURIComponent(at.user)}:${encodeURIComponent(at.password)}@${host}:${at.port}/${encodeURIComponent(at.database)}`;
}

export const clusterStore = (zookeeper: ClusterStore['zookeeper'], passwordFile: string): ClusterStore => ({zookeeper, database: CLUSTER_DATABASE, user: CLUSTER_USER, passwordFile});
