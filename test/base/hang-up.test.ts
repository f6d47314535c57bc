/** A peer that is gone is told from one that has nothing more to say, over each kind of socket. */
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import tls from 'node:tls';
import {noticeHangUp} from '../../lib/base/hang-up';
import {selfSigned} from '../fleet/certificate';
import {until} from '../harness/wait';

interface Pair { server: net.Socket; client: net.Socket; /** the client's TCP socket, below TLS */ below: net.Socket }

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-hang-up-'));
const ended: (() => void)[] = [];
afterEach(() => { for (const end of ended.splice(0)) end(); });
afterAll(() => fs.rmSync(dir, {recursive: true}));

async function pair(kind: 'unix' | 'tcp' | 'tls'): Promise<Pair> {
  const certificate = kind === 'tls' ? selfSigned() : undefined;
  const listener = certificate ? tls.createServer({...certificate, allowHalfOpen: true} as tls.TlsOptions) : net.createServer({allowHalfOpen: true});
  const socketPath = path.join(dir, `${ended.length}.sock`);
  await new Promise<void>((resolve) => { listener.listen(kind === 'unix' ? {path: socketPath} : {port: 0, host: '127.0.0.1'}, resolve); });
  const accepted = new Promise<net.Socket>((resolve) => { listener.once(kind === 'tls' ? 'secureConnection' : 'connection', resolve); });
  const below = net.connect(kind === 'unix' ? {path: socketPath, allowHalfOpen: true} : {port: (listener.address() as net.AddressInfo).port, host: '127.0.0.1', allowHalfOpen: true});
  const client = kind === 'tls' ? tls.connect({socket: below, rejectUnauthorized: false, allowHalfOpen: true} as tls.ConnectionOptions) : below;
  for (const socket of [below, client]) socket.on('error', () => undefined);
  const server = await accepted;
  server.on('error', () => undefined);
  ended.push(() => {
    for (const socket of [client, below, server]) socket.destroy();
    listener.close();
  });
  return {server, client, below};
}

test.each(['unix', 'tcp', 'tls'] as const)('%s: after its half-close a peer gets every byte and no other, and is noticed when it goes', async (kind) => {
  const {server, client, below} = await pair(kind);
  noticeHangUp(server);
  server.resume();
  let got = '';
  client.on('data', (chunk: Buffer) => { got += chunk.toString(); });
  const end = new Promise((resolve) => server.once('end', resolve));
  client.end('that was all');
  await end;
  // Over several probes.
  const from = Date.now();
  let said = '';
  while (Date.now() - from < 1_500) {
    server.write('x');
    said += 'x';
    await new Promise((resolve) => { setTimeout(resolve, 200); });
  }
  await until('every byte', () => got === said);
  expect(server.destroyed).toBe(false);
  // A socket that is closed with FIN alone is known to be gone only to a unix socket's peer; TCP's waits for the reset.
  if (kind === 'unix') client.destroy();
  else below.resetAndDestroy();
  await until('the hang-up to be noticed', () => server.destroyed, 3_000);
});

test('a peer that only listens for long is not taken for gone', async () => {
  const {server, client} = await pair('unix');
  noticeHangUp(server);
  server.resume();
  client.resume();
  await new Promise((resolve) => { setTimeout(resolve, 1_200); });
  expect([server.destroyed, client.destroyed]).toEqual([false, false]);
});
