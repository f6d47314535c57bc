/**
 * The connections to one agent: a pool for short calls, and one for streams, which nothing bounds.
 *
 * What ended leaves nothing behind: an idle connection of a stream is closed after KEEP_ALIVE_MS, whatever the agent allows, and a connection that nobody
 * wants any more when it is made at once. undici makes such ones: a request that is aborted in the middle of its answer is put back into its client's
 * queue, and a connection is made for it before the queue is cleared. No request ever runs on it, so no keep-alive timer does either, and it stayed until
 * the agent's patience with silent callers ended, close to a minute: a thousand readers of stats that left cost a thousand connections.
 */
import {buildConnector, Client, Pool} from 'undici';
import {type AgentAddress, type AgentTls, clientTls} from './address';

/** For short calls; more wait their turn. */
const CALL_CONNECTIONS = 64;
const CONNECT_TIMEOUT_MS = 5_000;
/** Below the agent's own keep-alive, so that we close first and never write into a closing connection. */
const KEEP_ALIVE_MS = 4_000;

export function connections(address: AgentAddress, tls: AgentTls | undefined): {calls: Pool; streams: Pool} {
  const connect = {timeout: CONNECT_TIMEOUT_MS, socketPath: address.socketPath, ...(tls && clientTls(tls))};
  const connector = buildConnector(connect);
  const shared = {connect, pipelining: 1, keepAliveTimeout: KEEP_ALIVE_MS};
  return {
    // The agent's own hint lets these live for a minute: who calls once calls again.
    calls: new Pool(address.origin, {...shared, connections: CALL_CONNECTIONS}),
    streams: new Pool(address.origin, {...shared, keepAliveMaxTimeout: KEEP_ALIVE_MS, factory: (origin, options) => wanting(origin, options, connector)}),
  };
}

/** A client that lets go of a connection for which it has no request. */
function wanting(origin: URL, options: object, connector: buildConnector.connector): Client {
  const client: Client = new Client(origin, {
    ...options,
    connect: (at, made) => connector(at, (...[err, socket]) => {
      if (err) return made(err, null);
      made(null, socket);
      // By then it has been given its request, or the requests that were gone have been cleared away.
      setImmediate(() => { if (client.stats.size === 0) socket.destroy(); });
    }),
  });
  return client;
}
