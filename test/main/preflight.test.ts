import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import {parseListen} from '../../lib/main/address';
import {makeDirectories, requireBinds, requireFree, requirePostgres, requireRoot} from '../../lib/main/up/preflight';
import {clientSettings} from '../../lib/main/up/up';

let dir: string;
const open: net.Server[] = [];
beforeEach(() => { dir = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-preflight-')); });
afterEach(async () => {
  for (const server of open.splice(0)) await new Promise((resolve) => server.close(resolve));
  fs.rmSync(dir, {recursive: true});
});

async function listening(at: net.ListenOptions): Promise<net.Server> {
  const server = net.createServer((socket) => socket.on('error', () => undefined).destroy());
  await new Promise<void>((resolve) => server.listen(at, resolve));
  open.push(server);
  return server;
}
const portOf = (server: net.Server): number => (server.address() as net.AddressInfo).port;

test('only root', () => {
  expect(() => requireRoot('up', 1000)).toThrow('cetus up wants root');
  expect(() => requireRoot('up', 0)).not.toThrow();
});

test('a data directory is made, for containers of any user to pass through; a file in its place is named', () => {
  const data = path.join(dir, 'a b', 'data');
  makeDirectories(data);
  expect(fs.statSync(data).mode & 0o777).toBe(0o711);
  fs.writeFileSync(path.join(dir, 'file'), '');
  expect(() => makeDirectories(path.join(dir, 'file'))).toThrow(/file cannot be made: there is a file in its place/);
  expect(() => makeDirectories(path.join(dir, 'file', 'below'))).toThrow(/there is a file in its place/);
});

test('binds: all, off, or absolute prefixes', () => {
  for (const binds of ['all', 'off', '/srv', '/srv,/data']) expect(() => requireBinds(binds)).not.toThrow();
  for (const binds of ['srv', '/srv,data', '/srv,', 'All']) expect(() => requireBinds(binds)).toThrow(/expected all, off, or absolute paths/);
});

test('an address that another program holds', async () => {
  const port = portOf(await listening({host: '127.0.0.1', port: 0}));
  await expect(requireFree(parseListen(`127.0.0.1:${port}`))).rejects.toThrow(`cannot listen on tcp://127.0.0.1:${port}: another program listens there`);
  await expect(requireFree(parseListen('127.0.0.1:0'))).resolves.toBeUndefined();
  await expect(requireFree(parseListen('198.51.100.1:0'))).rejects.toThrow('this machine has no such address');
});

test('a unix socket: another program\'s and other files stay, one that nobody answers on is ours to replace', async () => {
  const file = path.join(dir, 's');
  await expect(requireFree(parseListen(`unix://${file}`))).resolves.toBeUndefined();
  const server = await listening({path: file});
  await expect(requireFree(parseListen(`unix://${file}`))).rejects.toThrow('another program listens there');
  // What a killed listener leaves: the file without anybody behind it.
  fs.linkSync(file, `${file}.left`);
  await new Promise((resolve) => server.close(resolve));
  open.length = 0;
  await expect(requireFree(parseListen(`unix://${file}.left`))).resolves.toBeUndefined();
  fs.writeFileSync(`${file}.text`, 'precious');
  await expect(requireFree(parseListen(`unix://${file}.text`))).rejects.toThrow('something else than a socket');
  expect(fs.readFileSync(`${file}.text`, 'utf8')).toBe('precious');
});

test('a Postgres that is none, or does not answer: said without the password', async () => {
  for (const url of ['nonsense', 'http://127.0.0.1/x', 'localhost:5432']) await expect(requirePostgres(url)).rejects.toThrow('expected postgres://');
  const port = portOf(await listening({host: '127.0.0.1', port: 0}));
  const failure = await requirePostgres(`postgres://user:s3cret@127.0.0.1:${port}/db`).catch((err: Error) => err.message);
  expect(failure).toMatch(new RegExp(`^--postgres 127\\.0\\.0\\.1:${port}/db: .`));
  expect(failure).not.toContain('s3cret');
  await expect(requirePostgres('postgres://user@127.0.0.1:1/db')).rejects.toThrow(/--postgres 127\.0\.0\.1:1\/db: .*ECONNREFUSED/);
});

test('what a client is told to set leads to this machine', () => {
  const tls = {cert: 'c', key: 'k', ca: 'a'};
  expect(clientSettings('tcp://127.0.0.1:2375', undefined)).toEqual(['DOCKER_HOST=tcp://127.0.0.1:2375']);
  expect(clientSettings('tcp://0.0.0.0:2376', tls)).toEqual(['DOCKER_HOST=tcp://THIS-MACHINE:2376', 'DOCKER_TLS_VERIFY=1', 'DOCKER_CERT_PATH=DIR-WITH-ca.pem,cert.pem,key.pem']);
  expect(clientSettings('unix:///a b/s', tls)).toEqual(["DOCKER_HOST='unix:///a b/s'"]);
});
