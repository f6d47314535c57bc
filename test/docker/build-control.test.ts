/** The control API's connections end with each other, however a client leaves. */
import {once} from 'node:events';
import net from 'node:net';
import {proxyControl} from '../../lib/docker/endpoints/build-control';
import {silentLog} from '../../lib/base/log';

const open: {destroy(): void}[] = [];
const servers: net.Server[] = [];
afterEach(() => {
  for (const socket of open.splice(0)) socket.destroy();
  for (const server of servers.splice(0)) server.close();
});

/** Two ends of a connection, both of which may be half-open, as an HTTP server's are. */
async function pair(): Promise<{here: net.Socket; there: net.Socket}> {
  const server = net.createServer({allowHalfOpen: true}).listen(0, '127.0.0.1');
  servers.push(server);
  await once(server, 'listening');
  const there = net.connect({port: (server.address() as net.AddressInfo).port, host: '127.0.0.1', allowHalfOpen: true});
  const [here] = await once(server, 'connection') as [net.Socket];
  for (const socket of [here, there]) open.push(socket.on('error', () => undefined));
  return {here, there};
}

it('a client that leaves takes the engine\'s connection along, and the other way round', async () => {
  for (const leaver of ['client', 'engine'] as const) {
    const [client, engine] = [await pair(), await pair()];
    const over = proxyControl(client.here, engine.here, async () => undefined, silentLog());
    client.there.resume();
    engine.there.resume();
    (leaver === 'client' ? client : engine).there.end();
    await over;
    expect([client.here.destroyed, engine.here.destroyed]).toEqual([true, true]);
  }
});

it('a client that left before its connection was passed on leaves nothing either', async () => {
  const [client, engine] = [await pair(), await pair()];
  client.there.end();
  client.here.resume();
  await once(client.here, 'end');
  // What Node's sessions would read, were there any.
  engine.here.unshift(Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'));
  await proxyControl(client.here, engine.here, async () => undefined, silentLog());
  expect([client.here.destroyed, engine.here.destroyed]).toEqual([true, true]);
});
