/** Clients over TLS with certificates on both sides: streams as over TCP, and nobody in without a certificate. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import tls from 'node:tls';
import {NOTHING_LEFT, PROGRAM, run, startCetus, type Finished, type RunOptions, type TestDatacenter} from '../harness/cetus';
import {busyboxArchive} from '../harness/busybox';
import {makeCertificates, type Certificates} from '../harness/certificates';
import {Terminal} from '../harness/terminal';

let directory: string;
let certificates: Certificates;
let dc: TestDatacenter;
beforeAll(async () => {
  directory = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-tls-'));
  certificates = makeCertificates(directory);
  dc = await startCetus(['--tls-cert', certificates.serverCert, '--tls-key', certificates.serverKey, '--tls-ca', certificates.ca]);
  await docker(['load', '-i', await busyboxArchive()]);
}, 240_000);
afterAll(async () => {
  fs.rmSync(directory, {recursive: true, force: true});
  expect(await dc.destroy()).toEqual(NOTHING_LEFT);
}, 240_000);

const verified = (wallet: string): NodeJS.ProcessEnv => ({DOCKER_TLS_VERIFY: '1', DOCKER_CERT_PATH: wallet});
const docker = (args: string[], options: RunOptions = {}): Promise<Finished> => dc.docker(args, {...options, env: {...verified(certificates.client), ...options.env}});

test('a client with its certificate is served', async () => {
  expect((await docker(['version', '-f', '{{.Server.Os}}'])).stdout).toBe('linux\n');
  expect(await docker(['run', '--rm', 'busybox', 'sh', '-c', 'echo out; echo err >&2; exit 3'])).toMatchObject({status: 3, stdout: 'out\n', stderr: 'err\n'});
});

test('the end of stdin reaches the container, and what it says afterwards reaches the client', async () => {
  const done = await docker(['run', '-i', '--rm', 'busybox', 'sh', '-c', 'cat; sleep 1; echo after'], {input: 'one\n'});
  expect(done).toMatchObject({status: 0, stdout: 'one\nafter\n'});
});

test('binary, both ways, every byte', async () => {
  const bytes = Buffer.from(Array.from({length: 4 << 20}, (_, n) => (n * 7919) & 0xff));
  const done = await docker(['run', '-i', '--rm', 'busybox', 'cat'], {input: bytes, timeoutMs: 60_000});
  expect(done.status).toBe(0);
  expect(done.stdoutBytes.equals(bytes)).toBe(true);
});

test('exec and its exit code', async () => {
  expect((await docker(['run', '-d', '--name', 'host', 'busybox', 'sleep', '1000'])).status).toBe(0);
  expect(await docker(['exec', '-i', 'host', 'sh', '-c', 'wc -c; exit 9'], {input: Buffer.alloc(1 << 20)})).toMatchObject({status: 9, stdout: '1048576\n'});
  expect((await docker(['rm', '-f', 'host'])).status).toBe(0);
});

test('a terminal', async () => {
  const person = new Terminal(dc.host, 'docker run -it --rm busybox sh', verified(certificates.client));
  await person.sees(/# /);
  person.types('tty; exit 6\n');
  expect(await person.done).toBe(6);
});

test('an archive up and down', async () => {
  const file = path.join(directory, 'saved.tar');
  expect((await docker(['save', '-o', file, 'busybox'])).status).toBe(0);
  expect((await docker(['load', '-i', file])).stdout).toMatch(/Loaded image: busybox:latest/);
});

describe('refused', () => {
  test('a client that does not speak TLS', async () => {
    const done = await dc.docker(['version'], {env: {DOCKER_TLS_VERIFY: ''}});
    expect(done.status).not.toBe(0);
    expect(done.stderr).not.toBe('');
  });

  test('a client without a certificate, and one whose certificate another authority signed', async () => {
    const bare = await dc.docker(['--tls', '--tlscacert', certificates.ca, 'ps']);
    expect(bare.status).not.toBe(0);
    expect(bare.stderr).toMatch(/tls|certificate/i);
    const stranger = await dc.docker(['ps'], {env: verified(certificates.stranger)});
    expect(stranger.status).not.toBe(0);
    expect(stranger.stderr).toMatch(/tls|certificate/i);
  });

  test('on the socket: not one byte of an answer without a certificate', async () => {
    const {hostname, port} = new URL(dc.host);
    const answer = await new Promise<string>((resolve) => {
      let text = '';
      const socket = tls.connect({host: hostname, port: Number(port), ca: fs.readFileSync(certificates.ca)}, () => socket.write('GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n'));
      socket.on('data', (chunk: Buffer) => { text += chunk.toString('latin1'); }).on('error', () => undefined).on('close', () => resolve(text));
    });
    expect(answer).toBe('');
  });
});

describe('cetus up', () => {
  const up = (...args: string[]): Promise<Finished> => run(process.execPath, [PROGRAM, 'up', '--data', path.join(directory, 'other'), ...args], {timeoutMs: 20_000});

  test.each(['0.0.0.0:0', '[::]:0', ':0', '192.0.2.1:0'])('does not listen on %s without TLS', async (address) => {
    const done = await up('--listen', address);
    expect(done.status).not.toBe(0);
    expect(done.stderr).toMatch(/without TLS/);
    expect(fs.existsSync(path.join(directory, 'other'))).toBe(false);
  });

  test('wants certificate and key together, and files that exist', async () => {
    expect((await up('--listen', '127.0.0.1:0', '--tls-cert', certificates.serverCert)).stderr).toMatch(/belong together/);
    const missing = await up('--listen', '127.0.0.1:0', '--tls-cert', path.join(directory, 'nosuch.pem'), '--tls-key', certificates.serverKey);
    expect(missing.status).not.toBe(0);
    expect(missing.stderr).toMatch(/cannot read .*nosuch\.pem/);
    const foreign = await up('--listen', '127.0.0.1:0', '--tls-cert', certificates.ca, '--tls-key', certificates.serverKey);
    expect(foreign.status).not.toBe(0);
    expect(foreign.stderr).toMatch(/cannot be used: .*mismatch/);
    expect(fs.existsSync(path.join(directory, 'other'))).toBe(false);
  });
});
