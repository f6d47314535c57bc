/**
 * A datacenter of four nodes behind two endpoints: whatever is begun at one endpoint is gone on with at the other, containers are spread, volumes keep theirs to
 * their nodes, and the death of agents, containerds and endpoints under load loses nothing that was acknowledged and leaves nothing on any node.
 */
import {spawn} from 'node:child_process';
import {once} from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import {busyboxArchive} from '../harness/busybox';
import {NOTHING_LEFT} from '../harness/cetus';
import {startFleet, type TestFleet} from '../harness/fleet';
import {ofLong} from '../harness/long';
import {send, type Received} from '../harness/requests';
import {startRegistry, type TestRegistry} from '../harness/registry';
import {until} from '../harness/wait';

const NODES = 4;
const MANY = ofLong(60, 200);
let fleet: TestFleet;
let registry: TestRegistry;
let empty: Record<string, number>[];

beforeAll(async () => {
  registry = await startRegistry();
  fleet = await startFleet({nodes: NODES, endpoints: 2});
  await fleet.ok(['load', '-i', await busyboxArchive()]);
}, 240_000);
afterAll(async () => {
  const left = await fleet?.destroy();
  await registry?.stop();
  expect(left).toEqual(NOTHING_LEFT);
}, 240_000);

const call = (endpoint: number, method: string, at: string, body?: object): Promise<Received> => {
  const {hostname, port} = new URL(fleet.at(endpoint).host);
  return send({host: hostname, port: Number(port)}, {method, path: `/v1.45${at}`, ...(body ? {body: JSON.stringify(body), headers: {'content-type': 'application/json'}} : {})});
};
const json = <T>(answer: Received): T => JSON.parse(answer.body.toString()) as T;
const sleeper = (name: string): object => ({Image: 'busybox', Cmd: ['sleep', '100000'], Labels: {test: name.split('-')[0]}, HostConfig: {Init: false}});

async function made(endpoint: number, name: string): Promise<Received> {
  return call(endpoint, 'POST', `/containers/create?name=${name}`, sleeper(name));
}

/** At most `parallel` at once; endpoints in turn. */
async function each<T>(items: T[], parallel: number, work: (item: T, endpoint: number) => Promise<void>): Promise<void> {
  const queue = items.entries();
  await Promise.all(Array.from({length: parallel}, async () => {
    for (const [n, item] of queue) await work(item, 1 + (n % 2));
  }));
}

async function nodesOf(prefix: string): Promise<Map<string, number>> {
  const counts = new Map<string, number>();
  for (const {name, node} of await fleet.admin<{name: string; node: string}[]>('/v1/containers?limit=1000')) if (name.startsWith(prefix)) counts.set(node, (counts.get(node) ?? 0) + 1);
  return counts;
}

test('containers are spread over the nodes, also those that had not the image', async () => {
  for (let n = 0; n < 12; n += 1) await fleet.at(1 + (n % 2)).ok(['run', '-d', '--name', `spread-${n}`, 'busybox', 'sleep', '100000']);
  const counts = await nodesOf('spread-');
  expect(counts.size).toBe(NODES);
  expect(Math.max(...counts.values())).toBeLessThanOrEqual(4);
  await fleet.ok(['rm', '-f', ...Array.from({length: 12}, (_, n) => `spread-${n}`)]);
  // What every node holds from now on: the image.
  empty = await fleet.allMarks();
}, 120_000);

/** What a test that failed has left is no matter of the next one. */
afterEach(async () => {
  const left = (await fleet.docker(['ps', '-aq'])).stdout.split('\n').filter(Boolean);
  if (left.length) await fleet.docker(['rm', '-fv', ...left], {timeoutMs: 120_000});
  const volumes = (await fleet.docker(['volume', 'ls', '-q'])).stdout.split('\n').filter(Boolean);
  if (volumes.length) await fleet.docker(['volume', 'rm', ...volumes]);
}, 180_000);

describe('two endpoints are one', () => {
  const [a, b] = [1, 2] as const;

  test('what one has answered the other shows at once, in its list too', async () => {
    for (let n = 0; n < 30; n += 1) {
      const [from, to] = n % 2 ? [a, b] : [b, a];
      const {Id} = json<{Id: string}>(await made(from, `shown-${n}`));
      const listed = json<{Id: string}[]>(await call(to, 'GET', '/containers/json?all=1')).map((c) => c.Id);
      expect(listed).toContain(Id);
      expect((await call(from, 'DELETE', `/containers/${Id}`)).status).toBe(204);
      expect(json<{Id: string}[]>(await call(to, 'GET', '/containers/json?all=1')).map((c) => c.Id)).not.toContain(Id);
    }
  }, 120_000);

  test('each verb of a container that the other has started, on whatever node it is', async () => {
    for (let number = 1; number <= NODES; number += 1) {
      const name = `verbs-${number}`;
      const [from, to] = number % 2 ? [fleet.at(a), fleet.at(b)] : [fleet.at(b), fleet.at(a)];
      await from.ok(['run', '-d', '--name', name, '-e', `constraint:node==node-${number}`, 'busybox', 'sh', '-c', 'echo begun; while read line; do echo "got $line"; done; sleep 100000']);
      expect(await to.ok(['inspect', '-f', '{{.State.Running}}', name])).toBe('true');
      expect((await fleet.nodeOf(name)).number).toBe(number);
      expect(await to.ok(['ps', '--format', '{{.Names}}', '--filter', `name=${name}`])).toBe(name);
      expect(await to.ok(['logs', name])).toBe('begun');
      expect(await to.ok(['exec', '-i', name, 'sh', '-c', 'cat; exit 0'], {input: 'through the other'})).toBe('through the other');
      expect((await to.docker(['exec', name, 'sh', '-c', 'exit 7'])).status).toBe(7);
      expect(await to.ok(['top', name])).toContain('sleep 100000');
      expect(await to.ok(['stats', '--no-stream', '--format', '{{.Name}}', name])).toBe(name);
      const file = path.join(fleet.dataDir, name);
      fs.writeFileSync(file, `for ${name}`);
      await from.ok(['cp', file, `${name}:/copied`]);
      await to.ok(['cp', `${name}:/copied`, `${file}.back`]);
      expect(fs.readFileSync(`${file}.back`, 'utf8')).toBe(`for ${name}`);
      expect(await to.ok(['diff', name])).toContain('A /copied');
      await to.ok(['pause', name]);
      await from.ok(['unpause', name]);
      await to.ok(['rename', name, `${name}-new`]);
      await from.ok(['rename', `${name}-new`, name]);
      await to.ok(['update', '--memory', '64m', '--memory-swap', '128m', name]);
      await to.ok(['stop', '-t', '0', name]);
      await from.ok(['start', name]);
      await to.ok(['rm', '-f', name]);
      expect((await from.docker(['inspect', name])).status).not.toBe(0);
    }
  }, 180_000);

  test('attached at one, started and stopped at the other', async () => {
    await fleet.at(a).ok(['create', '-i', '--name', 'attached', 'busybox', 'sh', '-c', 'read line; echo "read $line"; exit 5']);
    const client = spawn('docker', ['start', '-ai', 'attached'], {env: {...process.env, DOCKER_HOST: fleet.at(b).host}, stdio: ['pipe', 'pipe', 'inherit']});
    let said = '';
    client.stdout.setEncoding('utf8').on('data', (text: string) => { said += text; });
    await until('it to run', async () => (await fleet.at(a).ok(['inspect', '-f', '{{.State.Running}}', 'attached'])) === 'true');
    client.stdin.end('a line\n');
    const [status] = await once(client, 'close') as [number];
    expect([status, said]).toEqual([5, 'read a line\n']);
    await fleet.ok(['rm', 'attached']);
  }, 120_000);

  test('an exec is made at one, started at the other, resized and looked at by both', async () => {
    await fleet.at(a).ok(['run', '-d', '--name', 'execs', 'busybox', 'sleep', '100000']);
    for (const [from, to] of [[a, b], [b, a]] as const) {
      const {Id} = json<{Id: string}>(await call(from, 'POST', '/containers/execs/exec', {AttachStdout: true, Cmd: ['sh', '-c', 'echo made elsewhere; exit 3']}));
      const {hostname, port} = new URL(fleet.at(to).host);
      const started = await send({host: hostname, port: Number(port)}, {method: 'POST', path: `/v1.45/exec/${Id}/start`, headers: {'content-type': 'application/json'}, body: '{"Detach":false,"Tty":false}', stdin: ''});
      expect(started.body.subarray(8).toString()).toBe('made elsewhere\n');
      for (const endpoint of [from, to]) await until('its end to be known', async () => {
        const seen = json<{Running: boolean; ExitCode: number}>(await call(endpoint, 'GET', `/exec/${Id}/json`));
        return !seen.Running && seen.ExitCode === 3;
      });
    }
    await fleet.ok(['rm', '-f', 'execs']);
  }, 120_000);

  test('who waits at one hears of an end at the other, and so does --rm', async () => {
    await fleet.at(a).ok(['run', '-d', '--name', 'awaited', 'busybox', 'sleep', '100000']);
    const waits = [a, b].map((endpoint) => call(endpoint, 'POST', '/containers/awaited/wait'));
    await call(b, 'POST', '/containers/awaited/kill');
    for (const answer of await Promise.all(waits)) expect(json(answer)).toMatchObject({StatusCode: 137});
    await fleet.at(a).ok(['rm', 'awaited']);
    const {Id} = json<{Id: string}>(await call(a, 'POST', '/containers/create?name=gone', {Image: 'busybox', Cmd: ['sh', '-c', 'exit 9'], HostConfig: {AutoRemove: true}}));
    const removed = [a, b].map((endpoint) => call(endpoint, 'POST', `/containers/${Id}/wait?condition=removed`));
    // Armed before the start: as `docker run --rm` does it.
    await until('both to wait', async () => (await Promise.all([a, b].map((endpoint) => call(endpoint, 'GET', `/containers/${Id}/json`)))).every(({status}) => status === 200));
    expect((await call(b, 'POST', `/containers/${Id}/start`)).status).toBe(204);
    for (const answer of await Promise.all(removed)) expect(json(answer)).toMatchObject({StatusCode: 9});
    await until('it to be gone', async () => (await call(a, 'GET', `/containers/${Id}/json`)).status === 404);
    expect(await fleet.at(b).ok(['run', '--rm', 'busybox', 'echo', 'and gone'])).toBe('and gone');
  }, 120_000);

  test('events are the same at both, live and afterwards, each of them once', async () => {
    const sinceNs = Date.now() / 1000 - 0.001;
    const streams = [a, b].map((endpoint) => {
      const child = spawn('docker', ['events', '--format', '{{.Action}} {{.Actor.ID}}', '--filter', 'type=container'], {env: {...process.env, DOCKER_HOST: fleet.at(endpoint).host}, stdio: ['ignore', 'pipe', 'inherit']});
      const seen: string[] = [];
      let rest = '';
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        const lines = (rest + text).split('\n');
        rest = lines.pop()!;
        seen.push(...lines);
      });
      return {child, seen};
    });
    try {
      // Whoever hears of this one hears of what comes then.
      await until('both to listen', async () => {
        await fleet.ok(['run', '--rm', 'busybox', 'true']);
        return streams.every(({seen}) => seen.length > 0);
      });
      const ids: string[] = [];
      for (let n = 0; n < 6; n += 1) {
        ids.push(await fleet.at(1 + (n % 2)).ok(['run', '-d', '--name', `told-${n}`, 'busybox', 'true']));
        await fleet.at(2 - (n % 2)).ok(['wait', `told-${n}`]);
        await fleet.at(2 - (n % 2)).ok(['rm', `told-${n}`]);
      }
      for (const id of ids) for (const {seen} of streams)
        await until(`all of ${id.slice(0, 12)}`, () => ['create', 'start', 'die', 'destroy'].every((action) => seen.filter((line) => line === `${action} ${id}`).length === 1));
      const past = await Promise.all([a, b].map((endpoint) => fleet.at(endpoint).ok(['events', '--since', String(sinceNs), '--until', String(Date.now() / 1000), '--format', '{{.TimeNano}} {{.Action}} {{.Actor.ID}}'])));
      expect(past[0]).toBe(past[1]);
      for (const id of ids) expect(past[0]!.split('\n').filter((line) => line.endsWith(id)).map((line) => line.split(' ')[1])).toEqual(['create', 'start', 'die', 'destroy']);
    } finally {
      for (const {child} of streams) child.kill();
    }
  }, 120_000);

  test('a name that both are asked for at once is one\'s', async () => {
    for (let n = 0; n < 10; n += 1) {
      const answers = await Promise.all([made(a, 'wanted'), made(b, 'wanted')]);
      expect(answers.map(({status}) => status).sort()).toEqual([201, 409]);
      await fleet.ok(['rm', 'wanted']);
    }
  }, 120_000);

  test('both pull the same image at once, and both show progress to its end', async () => {
    const image = `${registry.host}/twice:1`;
    await fleet.ok(['tag', 'busybox', image]);
    await fleet.ok(['push', image]);
    await fleet.ok(['rmi', image]);
    const pulls = await Promise.all([a, b].map((endpoint) => fleet.at(endpoint).docker(['pull', image])));
    for (const {status, stdout, stderr} of pulls) expect([status, stderr, stdout]).toEqual([0, '', expect.stringContaining('Digest: sha256:')]);
    await fleet.ok(['rmi', image]);
  }, 120_000);
});

test('a volume keeps its containers on its node; two of different nodes are refused with the reason', async () => {
  for (const number of [1, 2]) await fleet.ok(['run', '--rm', '-e', `constraint:node==node-${number}`, '-v', `on-${number}:/v`, 'busybox', 'sh', '-c', `echo ${number} > /v/number`]);
  for (const number of [1, 2]) {
    expect(await fleet.at(number).ok(['run', '--rm', '-v', `on-${number}:/v`, 'busybox', 'cat', '/v/number'])).toBe(String(number));
    expect((await fleet.cetus(['volume', 'ls'])).stdout).toMatch(new RegExp(`on-${number} +default +node-${number}`));
  }
  const refused = await fleet.docker(['create', '-v', 'on-1:/a', '-v', 'on-2:/b', 'busybox']);
  expect([refused.status, refused.stderr]).toEqual([1, expect.stringMatching(/volumes on-(\d) and on-(\d) are on different nodes \(node-\1 and node-\2\): one container cannot use both/)]);
  const elsewhere = await fleet.docker(['create', '-e', 'constraint:node==node-3', '-v', 'on-1:/a', 'busybox']);
  expect([elsewhere.status, elsewhere.stderr]).toEqual([1, expect.stringMatching(/on-1/)]);
  await fleet.ok(['volume', 'rm', 'on-1', 'on-2']);
}, 120_000);

test(`${MANY} containers are placed, inspected, execed and removed`, async () => {
  const names = Array.from({length: MANY}, (_, n) => `many-${n}`);
  await each(names, 16, async (name, endpoint) => {
    expect((await made(endpoint, name)).status).toBe(201);
    expect((await call(3 - endpoint, 'POST', `/containers/${name}/start`)).status).toBe(204);
  });
  const counts = await nodesOf('many-');
  expect([...counts.values()].reduce((x, y) => x + y, 0)).toBe(MANY);
  expect(counts.size).toBe(NODES);
  expect(Math.max(...counts.values()) - Math.min(...counts.values())).toBeLessThanOrEqual(ofLong(10, 20));
  await each(names, 16, async (name, endpoint) => {
    expect(json(await call(endpoint, 'GET', `/containers/${name}/json`))).toMatchObject({Name: `/${name}`, State: {Running: true}});
    const {Id} = json<{Id: string}>(await call(endpoint, 'POST', `/containers/${name}/exec`, {Cmd: ['true']}));
    expect((await call(3 - endpoint, 'POST', `/exec/${Id}/start`, {Detach: true})).status).toBe(200);
  });
  await each(names, 16, async (name, endpoint) => {
    expect((await call(endpoint, 'DELETE', `/containers/${name}?force=1`)).status).toBe(204);
  });
  expect(await nodesOf('many-')).toEqual(new Map());
  await fleet.nothingLeaked(empty);
}, 300_000);

test('agents, containerds and endpoints are killed under load: all that was acknowledged is there, nothing else, and nothing leaks', async () => {
  const standing = new Set<string>();
  const doubtful = new Set<string>();
  let working = true;
  let acknowledged = 0;
  const worker = async (lane: number): Promise<void> => {
    for (let n = 0; working; n += 1) {
      const name = `load-${lane}-${n}`;
      const endpoint = 1 + ((lane + n) % 2);
      const asked = (method: string, at: string, body?: object): Promise<number> => call(endpoint, method, at, body).then(({status}) => status, () => 0);
      doubtful.add(name);
      if ((await asked('POST', `/containers/create?name=${name}`, sleeper(name))) !== 201) continue;
      standing.add(name);
      if ((await asked('POST', `/containers/${name}/start`)) !== 204) continue;
      doubtful.delete(name);
      acknowledged += 1;
      // Every other one goes again.
      if (n % 2) continue;
      doubtful.add(name);
      standing.delete(name);
      if ((await asked('DELETE', `/containers/${name}?force=1`)) === 204) doubtful.delete(name);
    }
  };
  const workers = Array.from({length: 4}, (_, lane) => worker(lane));
  const victims = ofLong<Parameters<typeof fleet.kill>[0][]>(['agent-1', 'containerd-2', 'endpoint-1'], ['agent-1', 'containerd-2', 'endpoint-1', 'agent-3', 'endpoint-2', 'containerd-4', 'agent-2']);
  try {
    for (const victim of victims) {
      const before = acknowledged;
      await until('work to be done', () => acknowledged >= before + 4, 60_000);
      await fleet.kill(victim);
    }
    const before = acknowledged;
    await until('work to go on', () => acknowledged >= before + 8, 60_000);
  } finally {
    working = false;
    await Promise.all(workers);
  }
  const shown = async (): Promise<Map<string, string>> => new Map(json<{Names: string[]; State: string}[]>(await call(1, 'GET', '/containers/json?all=1')).map(({Names, State}) => [Names[0]!.slice(1), State]));
  await until('every job to end', async () => (await fleet.admin<{execution: string}[]>('/v1/jobs?limit=1000')).every(({execution}) => ['succeeded', 'failed', 'canceled'].includes(execution)), 90_000);
  const now = await shown();
  for (const name of standing) {
    expect([name, now.has(name)]).toEqual([name, true]);
    if (!doubtful.has(name)) expect([name, now.get(name)]).toEqual([name, 'running']);
  }
  for (const name of now.keys()) expect([name, standing.has(name) || doubtful.has(name)]).toEqual([name, true]);
  await until('all of them to be removed', async () => {
    const left = [...(await shown()).keys()];
    await each(left, 8, async (name, endpoint) => { await call(endpoint, 'DELETE', `/containers/${name}?force=1`); });
    return left.length === 0;
  }, 120_000);
  await fleet.nothingLeaked(empty, 90_000);
}, 400_000);
