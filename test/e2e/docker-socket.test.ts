/** /var/run/docker.sock inside a container, with the stock client at the very file that the container sees: on nodes that allow no bind at all. */
import fs from 'node:fs';
import {Aftermath} from '../harness/aftermath';
import {run} from '../harness/cetus';
import {datacenterWithBusybox, removeContainersAfterEach} from '../harness/suite';
import {until} from '../harness/wait';

const dc = datacenterWithBusybox({args: ['--binds', 'off']});
const after = new Aftermath(dc);
removeContainersAfterEach(dc);

const SOCKETS = ['/var/run/docker.sock', '/run/docker.sock'];
const mounts = (): string[] => fs.readFileSync('/proc/self/mountinfo', 'utf8').split('\n').filter((line) => dc.nodeDirs.some((dir) => line.includes(`${dir}/agent/docker/`)));

/** The client as a program in the container would run it. */
async function inside(name: string, socket: string, args: string[], input?: string): Promise<string> {
  const pid = await dc.ok(['inspect', '-f', '{{.State.Pid}}', name]);
  const done = await run('docker', args, {input, env: {...process.env, DOCKER_HOST: `unix:///proc/${pid}/root${socket}`, DOCKER_CONFIG: `${dc.dataDir}/docker-config`}});
  if (done.status !== 0) throw new Error(`docker ${args.join(' ')} in ${name}: ${done.stderr}`);
  return done.stdout.trim();
}

async function restart(part: 'agent' | 'endpoint'): Promise<void> {
  await dc.kill(await dc.part(part, 'reaper'));
  await after.serves();
}

test('speaks to this datacenter, streams included, and is shown as it was asked for', async () => {
  const id = await dc.ok(['run', '-d', '--name', 'reaper', '-v', `${SOCKETS[0]}:/var/run/docker.sock`, '--mount', `type=bind,source=${SOCKETS[1]},target=/other.sock,readonly`, 'busybox', 'sleep', '1000']);
  for (const socket of ['/var/run/docker.sock', '/other.sock']) expect(await inside('reaper', socket, ['ps', '-q', '--no-trunc'])).toBe(id);
  // The client's end of stdin is not the end of the output.
  expect(await inside('reaper', '/var/run/docker.sock', ['exec', '-i', 'reaper', 'sh', '-c', 'cat; echo over'], 'in\n')).toBe('in\nover');
  expect(await inside('reaper', '/other.sock', ['run', '--rm', '-i', 'busybox', 'cat'], 'x'.repeat(300_000))).toHaveLength(300_000);
  const [seen] = JSON.parse(await dc.ok(['inspect', id])) as [{Mounts: object[]; HostConfig: {Binds: string[]}}];
  expect(seen.HostConfig.Binds).toEqual([`${SOCKETS[0]}:/var/run/docker.sock`]);
  expect(seen.Mounts).toContainEqual({Type: 'bind', Source: SOCKETS[0], Destination: '/var/run/docker.sock', Mode: '', RW: true, Propagation: 'rprivate'});
  expect(seen.Mounts).toContainEqual(expect.objectContaining({Source: SOCKETS[1], Destination: '/other.sock', RW: false}));
  // As a reaper does: what bears the label goes.
  await dc.ok(['run', '-d', '--label', 'session=1', 'busybox', 'sleep', '1000']);
  const doomed = await inside('reaper', '/var/run/docker.sock', ['ps', '-q', '--filter', 'label=session=1']);
  await inside('reaper', '/var/run/docker.sock', ['rm', '-f', doomed]);
  expect(await dc.ok(['ps', '-q', '--no-trunc'])).toBe(id);
  expect((await dc.docker(['run', '--rm', '-v', '/tmp:/t', 'busybox', 'true'])).stderr).toContain('bind mount of /tmp is not allowed on this datacenter');
});

test('answers again after the agent and the endpoint have ended, time and again, and goes with its container', async () => {
  const id = await dc.ok(['run', '-d', '--name', 'reaper', '-v', `${SOCKETS[0]}:/var/run/docker.sock`, 'busybox', 'sleep', '1000']);
  for (const part of ['agent', 'endpoint', 'agent'] as const) {
    await restart(part);
    expect(await inside('reaper', '/var/run/docker.sock', ['ps', '-q', '--no-trunc'])).toBe(id);
    expect(mounts().length).toBeLessThanOrEqual(2);
  }
  // One that ended while nobody was there to see it.
  const pid = Number(await dc.ok(['inspect', '-f', '{{.State.Pid}}', 'reaper']));
  const [agent, dir] = [await dc.part('agent', 'reaper'), await dc.nodeDirOf('reaper')];
  const died = dc.kill(agent);
  process.kill(pid, 'SIGKILL');
  await died;
  await after.serves();
  await until('its socket to be gone', () => mounts().length === 0 && fs.readdirSync(`${dir}/agent/docker`).length === 0);
  await dc.ok(['start', 'reaper']);
  expect(await inside('reaper', '/var/run/docker.sock', ['ps', '-q', '--no-trunc'])).toBe(id);
}, 240_000);
