/** The stock client's management commands and formats that the other files do not come by; and a unix socket, spoken to by curl and by the client. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {run} from '../harness/cetus';
import {buildImage, busyboxLayer, buildLayer, dockerArchive} from '../harness/images';
import {datacenterWithBusybox, removeContainersAfterEach} from '../harness/suite';
import {until} from '../harness/wait';

// Short: a socket's path has 108 bytes at most.
const SOCKET = path.join(os.tmpdir(), `cetus-cli-${process.pid}.sock`);
const dc = datacenterWithBusybox({
  args: ['--listen', `unix://${SOCKET}`],
  prepare: async () => {
    const layer = await busyboxLayer('none');
    for (const n of [1, 2]) await dc.ok(['load'], {input: await dockerArchive([{image: buildImage([layer, await buildLayer([{name: `n${n}`, content: String(n)}], 'none')], {config: {Labels: {edition: String(n)}}}), tags: [`edition:${n}`]}])});
  },
});
removeContainersAfterEach(dc);

const lines = (text: string): string[] => text.split('\n').filter(Boolean);
const json = <T>(text: string): T[] => lines(text).map((l) => JSON.parse(l) as T);
const sleeper = (name: string, ...args: string[]): Promise<string> => dc.ok(['run', '-d', '--name', name, ...args, 'busybox', 'sleep', '1000']);

describe('docker container', () => {
  test('ls as JSON, with sizes, the last ones, and by every filter', async () => {
    await dc.ok(['network', 'create', 'filtered']);
    await sleeper('first', '-v', 'kept:/kept', '--label', 'tier=one');
    const second = await sleeper('second', '--network', 'filtered', '--expose', '99', '-p', '127.0.0.1::80');
    await dc.ok(['exec', 'first', 'sh', '-c', 'head -c 300000 /dev/zero > /big']);
    expect(json(await dc.ok(['container', 'ls', '-a', '--format', 'json', '--no-trunc', '-s']))).toMatchObject([
      {ID: second, Names: 'second', Image: 'busybox', Command: '"sleep 1000"', State: 'running', Networks: 'filtered', Ports: expect.stringMatching(/99\/tcp/)},
      {Names: 'first', Labels: 'tier=one', LocalVolumes: '1', Mounts: 'kept', Size: expect.stringMatching(/^3\d\dkB \(virtual /)},
    ]);
    const by = async (...filters: string[]): Promise<string[]> => lines(await dc.ok(['ps', '-a', '--format', '{{.Names}}', ...filters.flatMap((f) => ['-f', f])]));
    expect(await by('volume=kept')).toEqual(['first']);
    expect(await by('network=filtered')).toEqual(['second']);
    expect(await by('expose=99/tcp')).toEqual(['second']);
    expect(await by(`publish=${(await dc.ok(['port', 'second', '80'])).split(':')[1]}`)).toEqual(['second']);
    expect(await by('since=first')).toEqual(['second']);
    expect(await by('before=second')).toEqual(['first']);
    expect(await by(`id=${second.slice(0, 12)}`)).toEqual(['second']);
    expect(await by('label=tier=one', 'status=running')).toEqual(['first']);
    expect(await by('is-task=false')).toEqual(['second', 'first']);
    expect(lines(await dc.ok(['ps', '-l', '--format', '{{.Names}}']))).toEqual(['second']);
    expect(lines(await dc.ok(['ps', '-n', '1', '--format', '{{.Names}}']))).toEqual(['second']);
    await dc.ok(['rm', '-f', 'first', 'second']);
    await dc.ok(['network', 'rm', 'filtered']);
    await dc.ok(['volume', 'rm', 'kept']);
  });

  test('inspect: by type, with sizes; of several kinds at once', async () => {
    const id = await sleeper('seen', '-v', 'seen:/v');
    const [sized] = JSON.parse(await dc.ok(['container', 'inspect', '-s', 'seen'])) as [{Id: string; SizeRw: number; SizeRootFs: number}];
    expect(sized.Id).toBe(id);
    expect(sized.SizeRootFs).toBeGreaterThan(sized.SizeRw);
    expect(await dc.ok(['inspect', '--type', 'volume', '-f', '{{.Mountpoint}}', 'seen'])).not.toBe('');
    expect(await dc.ok(['inspect', '--type', 'image', '-f', '{{index .RepoTags 0}}', 'busybox'])).toBe('busybox:latest');
    expect(await dc.ok(['inspect', '--type', 'network', '-f', '{{.Driver}}', 'bridge'])).toBe('bridge');
    expect((await dc.docker(['inspect', '--type', 'image', 'seen'])).stderr).toMatch(/No such image: seen/i);
    expect((JSON.parse(await dc.ok(['inspect', 'seen', 'busybox', 'host'])) as object[])).toHaveLength(3);
    await dc.ok(['rm', '-fv', 'seen']);
    await dc.ok(['volume', 'rm', 'seen']);
  });

  test('several at once: start, stop, restart, kill, pause, update, wait, rm; what fails does not hold up the rest', async () => {
    for (const name of ['box1', 'box2']) await dc.ok(['create', '--name', name, 'busybox', 'sh', '-c', 'trap "exit 3" TERM; while :; do usleep 20000; done']);
    expect(lines(await dc.ok(['start', 'box1', 'box2']))).toEqual(['box1', 'box2']);
    expect(lines(await dc.ok(['restart', '-t', '1', 'box1', 'box2']))).toEqual(['box1', 'box2']);
    expect(lines(await dc.ok(['pause', 'box1', 'box2']))).toEqual(['box1', 'box2']);
    expect(lines(await dc.ok(['unpause', 'box1', 'box2']))).toEqual(['box1', 'box2']);
    expect(lines(await dc.ok(['update', '--pids-limit', '77', 'box1', 'box2']))).toEqual(['box1', 'box2']);
    expect(await dc.ok(['inspect', '-f', '{{.HostConfig.PidsLimit}}', 'box1', 'box2'])).toBe('77\n77');
    const waiting = dc.ok(['wait', 'box1', 'box2']);
    expect(lines(await dc.ok(['kill', '-s', 'KILL', 'box1', 'box2']))).toEqual(['box1', 'box2']);
    expect(lines(await waiting)).toEqual(['137', '137']);
    const mixed = await dc.docker(['rm', 'box1', 'nobody', 'box2']);
    expect(mixed).toMatchObject({status: 1, stdout: 'box1\nbox2\n', stderr: expect.stringMatching(/No such container: nobody/)});
  });

  test('start -a -i, attach without stdin, exec -d and with a file of variables', async () => {
    await dc.ok(['create', '-i', '--name', 'echoing', 'busybox', 'sh', '-c', 'read line; echo heard $line; exit 4']);
    expect(await dc.docker(['start', '-a', '-i', 'echoing'], {input: 'this\n'})).toMatchObject({status: 4, stdout: 'heard this\n'});
    await sleeper('lasting');
    const attached = dc.docker(['attach', '--no-stdin', 'lasting']);
    const variables = path.join(dc.dataDir, 'variables');
    fs.writeFileSync(variables, 'FROM_FILE=yes\n# no\n');
    await dc.ok(['exec', '-d', '--env-file', variables, '-e', 'MORE=too', '-u', '33', '-w', '/tmp', 'lasting', 'sh', '-c', 'echo $FROM_FILE $MORE $(id -u) $(pwd) > /tmp/said']);
    await until('the command in the background', async () => (await dc.docker(['exec', 'lasting', 'cat', '/tmp/said'])).stdout === 'yes too 33 /tmp\n');
    await dc.ok(['stop', '-t', '0', 'lasting']);
    expect((await attached).status).toBe(137);
  });

  test('logs: of one stream, since, until, and with details', async () => {
    await dc.ok(['run', '-d', '--name', 'logged', '--log-opt', 'labels=tier', '--label', 'tier=back', 'busybox', 'sh', '-c', 'echo one; until [ -e /go ]; do sleep 0.1; done; echo two; echo three >&2']);
    await until('the first line', async () => (await dc.ok(['logs', 'logged'])) === 'one');
    // The container may end, and take it along, before it has ended itself: whether it did what it was for shows in the log.
    await dc.docker(['exec', 'logged', 'touch', '/go']);
    await dc.ok(['wait', 'logged']);
    expect(await dc.docker(['logs', '-n', '1', 'logged'])).toMatchObject({status: 0});
    const {stdout, stderr} = await dc.docker(['logs', '-t', 'logged']);
    const [one, two] = lines(stdout).map((l) => l.split(' ')[0]!);
    // Of two streams either may be read first.
    const second = [two!, stderr.split(' ')[0]!].sort()[0]!;
    expect(await dc.docker(['logs', '--until', one!, 'logged'])).toMatchObject({stdout: 'one\n', stderr: ''});
    expect(await dc.docker(['logs', '--since', second, 'logged'])).toMatchObject({stdout: 'two\n', stderr: 'three\n'});
    expect((await dc.ok(['logs', '--details', 'logged'])).split('\n')[0]).toBe('tier=back one');
  });

  test('stats: without a stream, as a table and as JSON', async () => {
    const id = await sleeper('measured', '-m', '64m', '--pids-limit', '20');
    expect(await dc.ok(['stats', '--no-stream'])).toMatch(/^CONTAINER ID +NAME +CPU % +MEM USAGE \/ LIMIT +MEM % +NET I\/O +BLOCK I\/O +PIDS\n[0-9a-f]{12} +measured +[\d.]+% +[\d.]+[kKM]iB \/ 64MiB /);
    expect(json(await dc.ok(['container', 'stats', '--no-stream', '--format', 'json', '--no-trunc', 'measured']))).toMatchObject([{ID: id, Name: 'measured', PIDs: '1', MemUsage: expect.stringMatching(/ \/ 64MiB$/)}]);
  });

  test('prune takes what has ended, as the filters say', async () => {
    for (const [name, label] of [['old', 'keep=no'], ['kept', 'keep=yes']] as const) await dc.ok(['run', '--name', name, '--label', label, 'busybox', 'true']);
    await sleeper('running');
    await until('both to have ended', async () => lines(await dc.ok(['ps', '-aq', '-f', 'status=exited'])).length === 2);
    expect(await dc.ok(['container', 'prune', '-f', '--filter', 'label!=keep=yes'])).toMatch(/^Deleted Containers:\n[0-9a-f]{64}\n\nTotal reclaimed space: /);
    expect(await dc.ok(['container', 'prune', '-f', '--filter', 'until=1h'])).toBe('Total reclaimed space: 0B');
    expect(lines(await dc.ok(['ps', '-a', '--format', '{{.Names}}']))).toEqual(['running', 'kept']);
  });
});

describe('docker image', () => {
  test('ls by reference, label, before, since; with digests; inspect; history in full', async () => {
    const tags = async (...args: string[]): Promise<string[]> => lines(await dc.ok(['image', 'ls', '--format', '{{.Repository}}:{{.Tag}}', ...args])).sort();
    expect(await tags('-f', 'reference=edition:*')).toEqual(['edition:1', 'edition:2']);
    expect(await tags('-f', 'label=edition=2')).toEqual(['edition:2']);
    expect(await tags('edition')).toEqual(['edition:1', 'edition:2']);
    expect(await dc.ok(['image', 'ls', '--digests', 'edition'])).toMatch(/REPOSITORY +TAG +DIGEST +IMAGE ID/);
    expect(json(await dc.ok(['image', 'ls', '--format', 'json', 'busybox']))).toMatchObject([{Repository: 'busybox', Tag: 'latest'}]);
    expect(JSON.parse(await dc.ok(['image', 'inspect', 'edition:1', 'edition:2'])) as object[]).toMatchObject([{Config: {Labels: {edition: '1'}}}, {Config: {Labels: {edition: '2'}}}]);
    expect(lines(await dc.ok(['image', 'history', '--no-trunc', '--format', '{{.CreatedBy}} {{.Size}}', 'edition:1']))[1]).toMatch(/^ADD layer 0 \/ [\d.]+MB$/);
  });

  test('save of several, rm of several, load gives them back; prune -a leaves what is used', async () => {
    const file = path.join(dc.dataDir, 'editions.tar');
    await dc.ok(['image', 'save', '-o', file, 'edition:1', 'edition:2']);
    expect(await dc.ok(['image', 'rm', 'edition:1', 'edition:2'])).toMatch(/Untagged: edition:1[\s\S]*Untagged: edition:2/);
    expect(lines(await dc.ok(['image', 'load', '-i', file])).sort()).toEqual(['Loaded image: edition:1', 'Loaded image: edition:2']);
    await sleeper('user');
    expect(await dc.ok(['image', 'prune', '-f', '--filter', 'label=edition=none'])).toBe('Total reclaimed space: 0B');
    expect(await dc.ok(['image', 'prune', '-af'])).toMatch(/untagged: edition:1[\s\S]*Total reclaimed space: /);
    expect(lines(await dc.ok(['images', '--format', '{{.Repository}}']))).toEqual(['busybox']);
    await dc.ok(['load', '-q', '-i', file]);
  });
});

describe('docker system', () => {
  test('df: in sum, in detail, and as data', async () => {
    await sleeper('weighing', '-v', 'weighed:/v');
    await dc.ok(['exec', 'weighing', 'sh', '-c', 'head -c 2000000 /dev/zero > /v/file']);
    expect(json<{Type: string}>(await dc.ok(['system', 'df', '--format', 'json']))).toMatchObject([
      {Type: 'Images', TotalCount: expect.any(String), Active: '1'}, {Type: 'Containers', TotalCount: '1', Active: '1'}, {Type: 'Local Volumes', TotalCount: '1', Active: '1', Size: '2MB'}, {Type: 'Build Cache'}]);
    const detail = await dc.ok(['system', 'df', '-v']);
    expect(detail).toMatch(/Images space usage:[\s\S]*busybox +latest[\s\S]*Containers space usage:[\s\S]*weighing[\s\S]*Local Volumes space usage:[\s\S]*weighed +1 +2MB[\s\S]*Build cache usage: /);
    await dc.ok(['rm', '-f', 'weighing']);
    await dc.ok(['volume', 'rm', 'weighed']);
  });

  test('info and version by their templates', async () => {
    expect(await dc.ok(['info', '-f', '{{.OSType}} {{.Driver}} {{.Containers}} {{.ContainersRunning}} {{.Images}} {{.Swarm.LocalNodeState}}'])).toBe('linux overlayfs 0 0 3 inactive');
    expect(JSON.parse(await dc.ok(['system', 'info', '-f', 'json']))).toMatchObject({ClientInfo: {}, OSType: 'linux', NCPU: expect.any(Number)});
    expect(JSON.parse(await dc.ok(['version', '-f', 'json']))).toMatchObject({Server: {ApiVersion: '1.51', MinAPIVersion: '1.24', Components: expect.arrayContaining([expect.objectContaining({Name: 'containerd'})])}});
  });

  test('events: between two moments, by type, by name, as a template and as JSON', async () => {
    const from = String(Date.now() / 1000);
    await sleeper('eventful', '--label', 'tier=one');
    await dc.ok(['network', 'create', 'told']);
    await dc.ok(['network', 'connect', 'told', 'eventful']);
    await dc.ok(['rm', '-f', 'eventful']);
    await dc.ok(['network', 'rm', 'told']);
    // A name of its own: the Engine's filter by a volume's name lets by what else has that name.
    await dc.ok(['volume', 'create', 'shelf']);
    await dc.ok(['volume', 'rm', 'shelf']);
    const told = async (...args: string[]): Promise<string[]> => lines(await dc.ok(['events', '--since', from, '--until', String(Date.now() / 1000), ...args]));
    const all = ['create', 'start', 'kill', 'die', 'destroy'];
    expect(await until('the events', async () => {
      const now = await told('-f', 'container=eventful', '-f', 'type=container', '--format', '{{.Action}}');
      return now.length >= all.length && now;
    })).toEqual(all);
    expect(await told('-f', 'type=network', '-f', 'network=told', '--format', '{{.Action}}')).toEqual(['create', 'connect', 'disconnect', 'destroy']);
    expect(await told('-f', 'volume=shelf', '--format', '{{.Action}}')).toEqual(['create', 'destroy']);
    expect(await told('-f', 'label=tier=one', '-f', 'event=die', '--format', '{{.Actor.Attributes.exitCode}}')).toEqual(['137']);
    expect(json(((await told('-f', 'event=start', '--format', 'json')).join('\n')))).toMatchObject([{Type: 'container', Action: 'start', scope: 'local', Actor: {Attributes: {name: 'eventful', image: 'busybox', tier: 'one'}}}]);
  });

  test('prune takes containers, networks, images and volumes that nobody uses', async () => {
    await dc.ok(['run', '--name', 'ended', '-v', '/anonymous', 'busybox', 'true']);
    await until('its end', async () => (await dc.ok(['ps', '-aq', '-f', 'status=exited'])) !== '');
    await dc.ok(['network', 'create', 'unused']);
    const said = await dc.ok(['system', 'prune', '-f', '--volumes']);
    expect(said).toMatch(/Deleted Containers:\n[0-9a-f]{64}\n\nDeleted Networks:\nunused\n\nDeleted Volumes:\n[0-9a-f]{64}\n/);
    expect(said).toMatch(/Total reclaimed space: /);
    expect(await dc.ok(['volume', 'ls', '-q'])).toBe('');
  });
});

test('the fleet as nodes, no plugins, and no swarm', async () => {
  expect(json(await dc.ok(['node', 'ls', '--format', 'json']))).toMatchObject([{Status: 'Ready', Availability: 'Active'}]);
  const [{ID}] = json<{ID: string}>(await dc.ok(['node', 'ls', '--format', 'json']));
  expect(JSON.parse(await dc.ok(['node', 'inspect', ID]))).toMatchObject([{ID, Status: {State: 'ready'}}]);
  expect(await dc.ok(['plugin', 'ls', '-q'])).toBe('');
  const refused = async (...args: string[]): Promise<string> => {
    const done = await dc.docker(args);
    expect(done.status).toBe(1);
    return done.stderr;
  };
  for (const noun of ['service', 'secret', 'config', 'stack']) expect(await refused(noun, 'ls')).toMatch(/This node is not a swarm manager/);
  await dc.ok(['volume', 'create', 'local']);
  expect(await refused('volume', 'update', '--availability', 'pause', 'local')).toMatch(/can only update cluster volumes/);
  // Which the client says itself.
  const asked = await fetch(`${dc.host.replace('tcp', 'http')}/volumes/local?version=1`, {method: 'PUT', headers: {'Content-Type': 'application/json'}, body: '{"Spec":{}}'});
  expect([asked.status, await asked.json()]).toEqual([503, {message: 'volume update only valid for cluster volumes, but swarm is unavailable'}]);
  await dc.ok(['volume', 'rm', 'local']);
});

test('docker context: made, used, shown, removed', async () => {
  const env = {DOCKER_HOST: undefined, DOCKER_CONFIG: path.join(dc.dataDir, 'contexts')};
  const docker = (...args: string[]): Promise<string> => dc.ok(args, {env});
  await docker('context', 'create', 'sea', '--description', 'where whales are', '--docker', `host=${dc.host}`);
  expect(await docker('--context', 'sea', 'ps', '-q')).toBe('');
  await docker('context', 'use', 'sea');
  expect(await docker('run', '--rm', 'busybox', 'echo', 'in context')).toBe('in context');
  expect(json(await docker('context', 'ls', '--format', 'json'))).toEqual(expect.arrayContaining([expect.objectContaining({Name: 'sea', Current: true, DockerEndpoint: dc.host, Error: ''})]));
  expect(JSON.parse(await docker('context', 'inspect', 'sea'))).toMatchObject([{Name: 'sea', Endpoints: {docker: {Host: dc.host}}}]);
  await docker('context', 'use', 'default');
  await docker('context', 'rm', 'sea');
});

describe('a unix socket', () => {
  const curl = async (method: string, target: string, body?: object): Promise<{status: number; body: string}> => {
    const done = await run('curl', ['-sS', '--unix-socket', SOCKET, '-X', method, ...(body ? ['-H', 'Content-Type: application/json', '-d', JSON.stringify(body)] : []), '-w', '\n%{http_code}', `http://docker${target}`]);
    expect(done.stderr).toBe('');
    const at = done.stdout.lastIndexOf('\n');
    return {status: Number(done.stdout.slice(at + 1)), body: done.stdout.slice(0, at)};
  };

  test('curl: a container from create to remove, its logs, an exec, its archive\'s refusal', async () => {
    expect(await curl('GET', '/_ping')).toEqual({status: 200, body: 'OK'});
    const made = await curl('POST', '/v1.43/containers/create?name=curled', {Image: 'busybox', Cmd: ['sh', '-c', 'echo by curl; exec sleep 1000'], Tty: true});
    expect(made.status).toBe(201);
    const {Id} = JSON.parse(made.body) as {Id: string};
    expect((await curl('POST', `/containers/${Id}/start`)).status).toBe(204);
    expect((await curl('POST', `/containers/${Id}/start`)).status).toBe(304);
    await until('its log', async () => (await curl('GET', `/containers/curled/logs?stdout=1`)).body === 'by curl\r\n');
    expect(JSON.parse((await curl('GET', '/containers/json')).body)).toMatchObject([{Id, Names: ['/curled'], State: 'running'}]);
    const exec = JSON.parse((await curl('POST', '/containers/curled/exec', {Cmd: ['echo', 'hello'], AttachStdout: true, Tty: true})).body) as {Id: string};
    expect((await curl('POST', `/exec/${exec.Id}/start`, {Tty: true})).body).toBe('hello\r\n');
    expect(JSON.parse((await curl('GET', `/exec/${exec.Id}/json`)).body)).toMatchObject({ExitCode: 0, Running: false});
    expect((await curl('POST', '/containers/curled/kill?signal=KILL')).status).toBe(204);
    expect(JSON.parse((await curl('POST', '/containers/curled/wait')).body)).toMatchObject({StatusCode: 137});
    expect((await curl('DELETE', '/containers/curled')).status).toBe(204);
    expect(await curl('GET', '/containers/curled/json')).toMatchObject({status: 404, body: expect.stringContaining('No such container: curled')});
    expect(await curl('GET', '/nowhere')).toMatchObject({status: 404, body: expect.stringContaining('page not found')});
  });

  test('the client by its path, and it is nobody else\'s to open', async () => {
    const env = {DOCKER_HOST: `unix://${SOCKET}`};
    expect(await dc.docker(['run', '--rm', '-i', 'busybox', 'sh', '-c', 'cat; exit 3'], {env, input: 'through'})).toMatchObject({status: 3, stdout: 'through'});
    expect(fs.statSync(SOCKET).mode & 0o007).toBe(0);
  });
});
