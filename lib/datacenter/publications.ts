/** Published ports for the endpoints that open them: the leases of bucket `ports` as they come and go, and the ways to the containers behind. */
import {isIP} from 'node:net';
import {CetusError} from '../base/errors';
import {ALL} from '../moray/filter';
import {BUCKETS} from '../schema/buckets';
import type {IngressRow, PortLease} from '../schema/objects';
import type {Context} from './context';
import type {Publication, PublicationListener, PublicationVerbs} from './verbs';

const PORTS = BUCKETS.ports.name;
const INGRESSES = BUCKETS.ingresses.name;
const AGAIN_MS = 500;
/** An endpoint says something every minute. */
const FORGET_MS = 10 * 60_000;

export function publicationVerbs({moray, fleet, clock, log}: Context): PublicationVerbs {
  /** First the feed, then the list: what changes in between comes twice and never not at all. Etags rise, so the older of two is known. */
  const follow = async (listener: PublicationListener, signal: AbortSignal, known: Map<string, string>, loaded: () => void): Promise<void> => {
    const put = (key: string, lease: PortLease, etag: string): void => {
      const before = known.get(key);
      if (before !== undefined && BigInt(before) >= BigInt(etag)) return;
      known.set(key, etag);
      const publication = publicationOf(lease);
      if (publication) listener.put(key, publication);
    };
    const drop = (key: string): void => {
      if (known.delete(key)) listener.drop(key);
    };
    const changes = await moray.watch<PortLease>(PORTS, ALL, {signal});
    const listed = new Set<string>();
    const before = new Set(known.keys());
    for await (const {key, value, etag} of moray.find<PortLease>(PORTS, ALL)) {
      listed.add(key);
      put(key, value, etag);
    }
    for (const key of before) if (!listed.has(key)) drop(key);
    loaded();
    for await (const {kind, key, value, etag} of changes)
      if (kind === 'put') put(key, value, etag);
      // Listed after it had been deleted and made again: the lease that is there now is newer than this end.
      else if (BigInt(known.get(key) ?? '0') <= BigInt(etag)) drop(key);
  };

  return {
    follow: (listener, signal) => new Promise((resolve) => {
      const known = new Map<string, string>();
      void (async () => {
        while (!signal.aborted) {
          try {
            await follow(listener, signal, known, resolve);
            if (!signal.aborted) throw new CetusError('unavailable', 'the change feed of ports ended');
          } catch (err) {
            if (signal.aborted) break;
            log.warn({err}, 'following published ports; trying again');
            await clock.sleep(AGAIN_MS, signal).catch(() => undefined);
          }
        }
        resolve();
      })();
    }),

    async addressOf(nodeId) {
      const {agentUrl} = (await fleet.node(nodeId)).facts;
      if (agentUrl.startsWith('unix:')) return undefined;
      const host = new URL(agentUrl).hostname;
      return isIP(host.slice(1, -1)) === 6 ? host.slice(1, -1) : host;
    },

    async dial({nodeId, containerId, protocol, containerPort}) {
      return (await fleet.agent(nodeId)).dial(containerId, protocol, containerPort);
    },

    async announce(endpoint, row) {
      if (!row) return moray.delete(INGRESSES, endpoint);
      const {mtime} = await moray.put<IngressRow>(INGRESSES, endpoint, row);
      for (const other of await moray.list<IngressRow>(INGRESSES, ALL))
        // By the store's clock both: of endpoints' own none is compared.
        if (mtime - other.mtime > FORGET_MS) await moray.delete(INGRESSES, other.key, {etag: other.etag}).catch(() => undefined);
    },
  };
}

function publicationOf({protocol, hostIp, hostPort, account, containerId, containerPort = 0, nodeId, atEndpoints = false, proxyProtocol}: PortLease): Publication | undefined {
  if (protocol !== 'tcp' && protocol !== 'udp') return undefined;
  return {protocol, hostIp, hostPort, account, containerId, containerPort, nodeId, atEndpoints, ...(proxyProtocol ? {proxyProtocol} : {})};
}
