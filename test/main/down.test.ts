/** Whom `cetus down` ends: its own programs, and nobody who only names its directory. */
import {isOfInstance} from '../../lib/main/up/down';

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
