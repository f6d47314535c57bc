/** The start of `cetus up`: what stops it is said at once in one line, and one that is broken off leaves nothing running. */
import {spawn} from 'node:child_process';
import {once} from 'node:events';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import {silentLog} from '../../lib/base/log';
import {startPostgres} from '../../lib/main/postgres';
import {PROGRAM, run} from '../harness/cetus';
import {processesOf} from '../harness/leaks';

let dir: string;
beforeEach(() => { 
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-start-'));
  // Postgres runs as another user and must pass through.
  fs.chmodSync(dir, 0o711);
});
afterEach(async () => {
  if (fs.existsSync(path.join(dir, 'data', 'instance.json'))) await run(process.execPath, [PROGRAM, 'down', '--data', path.join(dir, 'data')]);
  fs.rmSync(dir, {recursive: true, force: true});
}, 240_000);

const up = (...args: string[]) => run(process.execPath, [PROGRAM, 'up', '--data', path.join(dir, 'data'), '--listen', '127.0.0.1:0', ...args], {timeoutMs: 60_000});

test.each(['Postgres', 'containerd'])('SIGINT as soon as %s is up, amid the next step: everything ends', async (part) => {
  const started = spawn(process.execPath, [PROGRAM, 'up', '--data', path.join(dir, 'data'), '--listen', '127.0.0.1:0'], {stdio: ['ignore', 'pipe', 'inherit']});
  const gone = once(started, 'exit');
  let said = '';
  started.stdout.setEncoding('utf8').on('data', (text: string) => {
    if (!said.includes(`${part}: up`) && (said + text).includes(`${part}: up`)) started.kill('SIGINT');
    said += text;
  });
  expect(await gone).toEqual([0, null]);
  expect(said).toMatch(/stopping; containers run on/);
  expect(said).not.toMatch(/Cetus is ready/);
  expect(processesOf(path.join(dir, 'data'))).toEqual([]);
}, 240_000);

test('a port that is taken: said before anything is started', async () => {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const {port} = server.address() as net.AddressInfo;
  const done = await up('--listen', `127.0.0.1:${port}`);
  server.close();
  expect(done.status).toBe(1);
  expect(done.stderr).toBe(`cetus: cannot listen on tcp://127.0.0.1:${port}: another program listens there; choose another with --listen (make run LISTEN=...)\n`);
  expect(done.stdout).toBe('');
});

test('a Postgres that a killed up left is ended by the next one that has another, before that one is looked at', async () => {
  const data = path.join(dir, 'data');
  fs.mkdirSync(path.join(data, 'run'), {recursive: true, mode: 0o711});
  const left = await startPostgres({dataDir: path.join(data, 'postgres'), socketDir: path.join(data, 'run'), log: silentLog()});
  try {
    const done = await up('--postgres', 'postgres://127.0.0.1:1/db');
    expect(done.stderr).toMatch(/ECONNREFUSED/);
    expect(processesOf(data)).toEqual([]);
    expect(() => process.kill(left.pid, 0)).toThrow('ESRCH');
  } finally {
    await left.stop(5_000);
  }
}, 60_000);

test.each([
  [['--postgres', 'postgres://user:s3cret@127.0.0.1:1/db'], /^cetus: --postgres 127\.0\.0\.1:1\/db: .*ECONNREFUSED.*\n$/],
  [['--binds', 'srv'], /^cetus: --binds srv: expected all, off, or absolute paths.*\n$/],
  [['--tls-cert', '/nope', '--tls-key', '/nope'], /^cetus: TLS: cannot read \/nope: ENOENT: no such file or directory, open '\/nope'\n$/],
  [['--bogus'], /^error: unknown option '--bogus'\n\(--help after a command lists its options\)\n$/],
])('%j: one line', async (args, expected) => {
  const done = await up(...args);
  expect(done.status).toBe(1);
  expect(done.stderr).toMatch(expected);
});
