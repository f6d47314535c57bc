/** Two streams as one: each direction ends by itself, and a half that is gone takes the other with it. */
import {once} from 'node:events';
import {mkdtempSync, rmSync} from 'node:fs';
import net from 'node:net';
import {tmpdir} from 'node:os';
import path from 'node:path';
import {join} from '../../../lib/agent/docker-socket/join';
import {until} from '../node';

let dir: string;
const open: {close(): void}[] = [];
beforeEach(() => { dir = mkdtempSync(path.join(tmpdir(), 'cetus-join-')); });
afterEach(() => {
  for (const one of open.splice(0)) one.close();
  rmSync(dir, {recursive: true});
});

/** Both ends of a connection. */
async function pair(name: string): Promise<[net.Socket, net.Socket]> {
  const server = net.createServer({allowHalfOpen: true});
  await new Promise<void>((resolve) => server.listen(path.join(dir, name), resolve));
  const accepted = once(server, 'connection') as Promise<[net.Socket]>;
  const client = net.connect({path: path.join(dir, name), allowHalfOpen: true});
  const [served] = await accepted;
  open.push({close: () => { client.destroy(); served.destroy(); server.close(); }});
  return [client, served];
}

async function joined(): Promise<{client: net.Socket; server: net.Socket}> {
  const [client, near] = await pair('a');
  const [far, server] = await pair('b');
  join(near, far);
  return {client, server};
}

async function all(stream: net.Socket): Promise<string> {
  let text = '';
  // Iterated it would be destroyed at its end, both ways.
  stream.setEncoding('utf8').on('data', (chunk: string) => { text += chunk; });
  await once(stream, 'end');
  return text;
}

test('the end of what is asked leaves the answer alone', async () => {
  const {client, server} = await joined();
  const asked = all(server);
  client.end('question');
  expect(await asked).toBe('question');
  const answered = all(client);
  server.end('a'.repeat(3_000_000));
  expect(await answered).toHaveLength(3_000_000);
});

test('the end of the answer leaves what is asked alone', async () => {
  const {client, server} = await joined();
  server.end('answer');
  expect(await all(client)).toBe('answer');
  const asked = all(server);
  client.end('late');
  expect(await asked).toBe('late');
});

test.each(['client', 'server'] as const)('a %s that is gone is gone for the other', async (gone) => {
  const ends = await joined();
  const left = gone === 'client' ? ends.server : ends.client;
  left.on('error', () => undefined).resume();
  ends[gone].write('some');
  ends[gone].destroy();
  left.end();
  await until('the other to be closed', () => left.destroyed);
});
