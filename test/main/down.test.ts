/** Whom `cetus down` ends, and the next `cetus up`: its own programs, and nobody who only names its directory. */
import {spawn} from 'node:child_process';
import {once} from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {down, isOfInstance} from '../../lib/main/up/down';
import {isFormer} from '../../lib/main/up/former';

const dir = '/srv/cetus';

test.each([
  ['/usr/bin/node', '/opt/cetus/dist/main/cetus.js', 'agent', '--config', '/srv/cetus/run/agent.json'],
  ['/usr/bin/node', '--min-semi-space-size=8', 'dist/main/cetus.js', 'up', '--data', '/srv/cetus'],
  ['containerd', '--config', '/srv/cetus/containerd/config.toml'],
  ['/usr/bin/containerd-shim-runc-v2', '-namespace', 'cetus', '-address', '/srv/cetus/containerd/run/containerd.sock'],
  ['/x/native/bin/postgres', '-D', '/srv/cetus/postgres'],
])('%s %s is ours', (...words) => {
  expect(isOfInstance(words, dir)).toBe(true);
});

test.each([
  ['bash', '-c', 'cetus down --data /srv/cetus && ls /srv/cetus/run'],
  ['vim', '/srv/cetus/log/agent.log'],
  ['tail', '-f', '/srv/cetus/log/endpoint.log'],
  ['docker', '--host', 'unix:///srv/cetus/run/docker.sock', 'events'],
  ['node', '/home/me/tool.js', '/srv/cetus/run/up.json'],
  ['containerd', '--config', '/srv/cetus2/containerd/config.toml'],
  ['/usr/bin/node', '/opt/cetus/dist/main/cetus.js', 'up', '--data', '/srv/cetus2'],
  [''],
])('%s %s is not', (...words) => {
  expect(isOfInstance(words, dir)).toBe(false);
});

test('a killed cetus up\'s endpoint and agent are told from those who look at their files', () => {
  expect(isFormer(['/usr/bin/node', '--max-semi-space-size=4', '/opt/cetus/dist/main/cetus.js', 'agent', '--config', '/srv/cetus/run/agent.json', ''], dir)).toBe(true);
  expect(isFormer(['/usr/bin/node', '/opt/cetus/dist/main/cetus.js', 'endpoint', '--config', '/srv/cetus/run/endpoint.json'], dir)).toBe(true);
  expect(isFormer(['/usr/bin/node', '/opt/cetus/dist/main/cetus.js', 'agent', '--config', '/srv/cetus2/run/agent.json'], dir)).toBe(false);
  for (const other of [['less', '/srv/cetus/run/agent.json'], ['vim', 'agent', '/srv/cetus/run/agent.json'], ['']]) expect(isFormer(other, dir)).toBe(false);
});

test('what a killed `cetus cluster --only-store` left is ended, where there has never been an instance', async () => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-down-'));
  const write = jest.spyOn(process.stdout, 'write').mockReturnValue(true);
  try {
    await expect(down(directory)).rejects.toMatchObject({kind: 'notFound'});
    fs.mkdirSync(path.join(directory, 'run'));
    fs.writeFileSync(path.join(directory, 'run', 'cluster.json'), '{}');
    const left = spawn('sleep', ['1000'], {argv0: 'java', env: {}});
    const ours = spawn('sh', ['-c', 'read never', path.join(directory, 'cluster', 'zookeeper-1')], {argv0: 'java'});
    const gone = once(ours, 'exit');
    await once(ours, 'spawn');
    await down(directory);
    expect(await gone).toEqual([null, 'SIGTERM']);
    expect(left.exitCode ?? left.signalCode).toBeNull();
    expect(write).toHaveBeenCalledWith('down: the store has ended; the data stays\n');
    left.kill('SIGKILL');
    await once(left, 'exit');
  } finally {
    write.mockRestore();
    fs.rmSync(directory, {recursive: true});
  }
});
