/** restify patches Node's own classes; what others rely on must stay as Node documents it. */
import http from 'node:http';
import type {AddressInfo} from 'node:net';
import '../../lib/base/restify';

test('writeHead can still be chained by servers that have nothing to do with restify', async () => {
  const server = http.createServer((_req, res) => { res.writeHead(418, {'x-kept': 'yes'}).end('short'); });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const answer = await fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
  expect([answer.status, answer.headers.get('x-kept'), await answer.text()]).toEqual([418, 'yes', 'short']);
  await new Promise((resolve) => server.close(resolve));
});
