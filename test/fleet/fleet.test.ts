import {mkdtempSync, rmSync} from 'node:fs';
import net from 'node:net';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {request} from 'undici';
import {Pool} from 'undici';
import {silentLog} from '../../lib/base/log';
import {systemClock} from '../../lib/base/clock';
import {createFleet, type RunningFleet} from '../../lib/fleet/create';
import {FakeAgent} from '../../lib/fleet/fake-agent';
import {createMemoryMoray} from '../../lib/moray/memory';
import type {Moray} from '../../lib/moray/moray';
import {BUCKETS} from '../../lib/schema/buckets';
import type {Node} from '../../lib/schema/node';
import {aContainer, anObservation, someFacts} from './objects';

async function until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  const end = Date.now() + 5000;
  while (!await condition()) {
    if (Date.now() > end) throw new Error(`never: ${what}`);
    await new Promise(next => setTimeout(next, 5));
  }
}

describe('a fleet', () => {
  let dir: string;
  let moray: Moray;
  let fleet: RunningFleet;
  let agents: Pool;
  let nowMs: number;
  const clock = {...systemClock, now: () => nowMs, nowNs: () => systemClock.nowNs(), sleep: (ms: number, signal?: AbortSignal) => systemClock.sleep(Math.min(ms, 10), signal)};

  const make = () => createFleet({moray, log: silentLog(), clock, listen: {socketPath: join(dir, 'fleet.sock')}, leaseMs: 1000, graceMs: 2000, connect: node => new FakeAgent({facts: node.facts})});
  const call = async (path: string, body: unknown): Promise<{status: number; body: Record<string, unknown>}> => {
    const answer = await agents.request({method: 'POST', path, body: typeof body === 'string' ? body : JSON.stringify(body)});
    return {status: answer.statusCode, body: await answer.body.json() as Record<string, unknown>};
  };
  const beat = (bootGeneration = 1) => call('/v1/heartbeat', {nodeId: 'n1', bootGeneration, reportSeq: 0, runningContainers: 0});
  /** As time passes for a process that runs: in steps shorter than it sleeps. */
  const pass = async (ms: number): Promise<void> => {
    for (const end = nowMs + ms; nowMs < end;) {
      nowMs = Math.min(end, nowMs + 100);
      await new Promise(next => setTimeout(next, 20));
    }
  };
  const liveness = async () => (await moray.get<Node>(BUCKETS.nodes.name, 'n1')).value.liveness;

  beforeEach(async () => {
    nowMs = 1_000_000;
    dir = mkdtempSync(join(tmpdir(), 'cetus-fleet-'));
    moray = createMemoryMoray();
    fleet = make();
    await fleet.start();
    agents = new Pool('http://fleet', {connect: {socketPath: join(dir, 'fleet.sock')}});
  });
  afterEach(async () => {
    await agents.destroy();
    await fleet.stop();
    await moray.close();
    rmSync(dir, {recursive: true});
  });

  test('a node joins, is found by id and name, and can be reached', async () => {
    expect(await call('/v1/join', someFacts())).toEqual({status: 200, body: {nodeId: 'n1'}});
    expect(await fleet.node('alpha')).toMatchObject({id: 'n1', liveness: 'alive'});
    expect((await (await fleet.agent('n1')).info()).name).toBe('alpha');
    expect((await fleet.agent('n1'))).toBe(await fleet.agent('n1'));
    await expect(fleet.agent('n9')).rejects.toMatchObject({kind: 'notFound'});
  });

  test('joining again keeps what the operator set, and a new address makes a new client', async () => {
    await call('/v1/join', someFacts());
    const stored = await moray.get<Node>(BUCKETS.nodes.name, 'n1');
    await moray.put(BUCKETS.nodes.name, 'n1', {...stored.value, availability: 'cordoned', labels: {rack: 'r1'}, claim: {at: '2026-01-01T00:00:00Z', nodeId: 'n7', message: 'refused'}});
    const client = await fleet.agent('n1');
    await call('/v1/join', someFacts({bootGeneration: 2, agentUrl: 'unix:///elsewhere.sock'}));
    expect(await fleet.node('n1')).toMatchObject({availability: 'cordoned', labels: {rack: 'r1'}, facts: {bootGeneration: 2}});
    expect(await fleet.node('n1')).not.toHaveProperty('claim');
    expect(await fleet.agent('n1')).not.toBe(client);
    expect(await beat(1)).toMatchObject({status: 409, body: {kind: 'stale'}});
    expect(await call('/v1/join', someFacts())).toMatchObject({status: 409, body: {kind: 'stale'}});
    expect(await call('/v1/join', someFacts({nodeId: 'n2'}))).toMatchObject({status: 409, body: {kind: 'conflict', message: 'another node is called alpha'}});
  });

  test('silence makes a node suspect and unreachable, a heartbeat brings it back, and a heartbeat alone writes nothing', async () => {
    await call('/v1/join', someFacts());
    const {etag} = await moray.get(BUCKETS.nodes.name, 'n1');
    expect(await beat()).toEqual({status: 200, body: {leaseMs: 1000}});
    expect((await moray.get(BUCKETS.nodes.name, 'n1')).etag).toBe(etag);
    await pass(2001);
    await until('suspect', async () => await liveness() === 'suspect');
    await until('known here', async () => (await fleet.node('n1')).liveness === 'suspect');
    await expect(fleet.agent('n1')).rejects.toMatchObject({kind: 'unavailable', message: /no heartbeat for [12] s/});
    await beat();
    await until('alive', async () => await liveness() === 'alive');
  });

  test('an endpoint that restarts declares nobody lost before its grace is over', async () => {
    await call('/v1/join', someFacts());
    await fleet.stop();
    nowMs += 3_600_000;
    fleet = make();
    await fleet.start();
    await pass(1999);
    expect(await (await fleet.agent('n1')).info()).toMatchObject({nodeId: 'n1'});
    expect(await liveness()).toBe('alive');
    await pass(1100);
    await until('suspect', async () => await liveness() === 'suspect');
  });

  test('a process that stood still blames no node for it, and those that stay silent afterwards as ever', async () => {
    await call('/v1/join', someFacts());
    await beat();
    nowMs += 3_600_000;
    await pass(700);
    expect(await liveness()).toBe('alive');
    expect(await (await fleet.agent('n1')).info()).toMatchObject({nodeId: 'n1'});
    await pass(1300);
    await until('suspect', async () => await liveness() === 'suspect');
  });

  test('a node that the operator changes elsewhere is followed through the change feed', async () => {
    await call('/v1/join', someFacts());
    const stored = await moray.get<Node>(BUCKETS.nodes.name, 'n1');
    await moray.put(BUCKETS.nodes.name, 'n1', {...stored.value, availability: 'draining'});
    await until('draining', async () => (await fleet.nodes())[0]?.availability === 'draining');
  });

  test('reports reach the store and the listeners', async () => {
    await call('/v1/join', someFacts());
    await moray.put(BUCKETS.containers.name, 'c1', aContainer({status: 'running'}));
    const seen: string[] = [];
    const stop = fleet.onContainerChange(change => seen.push(`${change.container.id} ${change.container.status} ${change.actions.join()}`));
    const die = {seq: 7, at: '2026-01-01T00:00:01.5Z', kind: 'container', action: 'die', attributes: {}, observation: anObservation({generation: 5, status: 'exited'})};
    expect(await call('/v1/reports', {nodeId: 'n1', bootGeneration: 1, reports: [die]})).toEqual({status: 200, body: {ackedSeq: 7}});
    expect(seen).toEqual(['c1 exited die']);
    stop();
    expect(await call('/v1/reports', {nodeId: 'n2', bootGeneration: 1, reports: []})).toMatchObject({status: 404, body: {kind: 'notFound'}});
  });

  test('a container\'s connection to the Docker API is its account\'s, whatever it says; who is not there gets none', async () => {
    await moray.put(BUCKETS.containers.name, 'c1', aContainer({account: 'jill'}));
    const ask = async (container: string, sent = ''): Promise<string> => {
      const socket = net.connect({path: join(dir, 'fleet.sock'), allowHalfOpen: true});
      let text = '';
      socket.setEncoding('utf8').on('data', (chunk: string) => { text += chunk; });
      socket.end(`POST /v1/docker HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: cetus-docker\r\nX-Cetus-Container: ${container}\r\n\r\n${sent}`);
      await new Promise(resolve => socket.once('end', resolve));
      return text;
    };
    expect(await ask('c1')).toMatch(/^HTTP\/1\.1 503 .*does not answer Docker clients/s);
    fleet.onDocker((socket, account) => socket.once('data', (first: Buffer) => socket.end(`${account} ${first}`)));
    expect(await ask('c1', 'X-Account: jack')).toMatch(/^HTTP\/1\.1 101 .*\r\n\r\njill X-Account: jack$/s);
    expect(await ask('c2')).toMatch(/^HTTP\/1\.1 404 .*No such container: c2/s);
  });

  test('what is malformed, oversized or misdirected is refused with a reason', async () => {
    expect(await call('/v1/join', '{')).toMatchObject({status: 400, body: {kind: 'invalid', message: 'the body is not JSON'}});
    expect(await call('/v1/join', {...someFacts(), cpus: -1})).toMatchObject({status: 400, body: {message: '/v1/join: /cpus must be > 0'}});
    expect(await call('/v1/reports', {nodeId: 'n1', bootGeneration: 1, reports: [{seq: 1, at: '2026-01-01T00:00:01Z', kind: 'rumour'}]})).toMatchObject({status: 400, body: {kind: 'invalid'}});
    expect(await call('/v1/nonsense', {})).toMatchObject({status: 404});
    const endless = await request('http://fleet/v1/reports', {method: 'POST', body: 'x'.repeat(9 * 1024 * 1024), dispatcher: agents}).then(a => a.statusCode, (err: {code: string}) => err.code);
    expect([400, 'UND_ERR_SOCKET', 'EPIPE', 'ECONNRESET']).toContain(endless);
    expect(await call('/v1/join', someFacts())).toMatchObject({status: 200});
  });
});
