/** Swarm mode and plugins: what an Engine without either answers; and the nodes, which are there. */
import request from 'supertest';
import type {Node} from '../../lib/schema/node';
import {OPERATIONS} from '../../lib/docker/operations';
import {NODE} from './fake-datacenter';
import {type World, closeWorlds, world} from './world';

afterEach(closeWorlds);

const NOT_A_MANAGER = 'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.';
const UNSIGNED = 'strconv.ParseUint: parsing "": invalid syntax';

async function ask({url}: World, method: string, path: string, body?: unknown): Promise<{status: number; message: string; body: unknown}> {
  const json = body === undefined ? {} : {headers: {'Content-Type': 'application/json'}, body: JSON.stringify(body)};
  const got = await fetch(`${url}${path}`, {method, ...json});
  const answer = await got.json() as {message: string};
  return {status: got.status, message: answer.message, body: answer};
}

describe('swarm mode', () => {
  it('is told to be off by every operation of its own', async () => {
    const here = await world();
    const changes = /^(Service|Secret|Config|Swarm)Update$/;
    const own = OPERATIONS.filter(({group, id}) => group === 'swarm' && !/^Node|^SwarmInit|^SwarmJoin/.test(id));
    expect(own.length).toBe(24);
    for (const {id, method, path} of own) {
      const at = `${path.replace('{id}', 'x')}${changes.test(id) ? '?version=3' : '?stdout=1'}`;
      const {status, message} = await ask(here, method, at, method === 'POST' && id !== 'SwarmLeave' ? {} : undefined);
      expect({id, status, message}).toEqual({id, status: 503, message: id === 'SwarmLeave' ? 'This node is not part of a swarm' : NOT_A_MANAGER});
    }
  });

  it.each([
    ['POST', '/services/x/update', {}, `invalid service version '': ${UNSIGNED}`],
    ['POST', '/services/x/update?version=99999999999999999999', {}, 'invalid service version \'99999999999999999999\': strconv.ParseUint: parsing "99999999999999999999": value out of range'],
    ['POST', '/swarm/update?version=-1', {}, 'invalid swarm version \'-1\': strconv.ParseUint: parsing "-1": invalid syntax'],
    ['POST', '/nodes/node1/update', {}, `invalid node version '': ${UNSIGNED}`],
    ['POST', '/secrets/x/update', {}, 'invalid secret version'],
    ['POST', '/configs/x/update?version=a', {}, 'invalid config version'],
    ['GET', '/services/x/logs', undefined, 'Bad parameters: you must choose at least one stream'],
    ['GET', '/tasks/x/logs?stdout=0', undefined, 'Bad parameters: you must choose at least one stream'],
    ['GET', '/tasks?filters=x', undefined, 'invalid filter'],
  ])('%s %s: what the request gets wrong comes first', async (method, path, body, message) => {
    const got = await ask(await world(), method, path, body);
    expect(got.status).toBe(400);
    expect(got.message).toContain(message);
  });

  it.each([['init', 'a datacenter cannot become a swarm'], ['join', 'a datacenter cannot join a swarm']])('a datacenter does not %s', async (verb, message) => {
    const got = await ask(await world(), 'POST', `/swarm/${verb}`, {ListenAddr: '0.0.0.0:2377'});
    expect(got.status).toBe(400);
    expect(got.message).toContain(message);
  });

  it('volumes of a cluster are not there to be changed', async () => {
    expect(await ask(await world(), 'PUT', '/volumes/x?version=1', {})).toMatchObject({status: 503, message: 'volume update only valid for cluster volumes, but swarm is unavailable'});
  });
});

const node = (n: number, over: Partial<Node> = {}, facts: Partial<Node['facts']> = {}): Node => ({
  ...NODE, id: `node-id-${n}`, name: `rack${n}`, ...over, facts: {...NODE.facts, nodeId: `node-id-${n}`, name: `rack${n}`, agentUrl: `https://10.0.0.${n}:7071`, ...facts},
});

async function fleet(): Promise<World> {
  const here = await world();
  here.fake.nodes.splice(0, 1, node(1, {labels: {zone: 'a', gpu: ''}}, {labels: {disk: 'ssd'}}), node(2, {availability: 'cordoned', liveness: 'suspect'}), node(3, {
    availability: 'draining', liveness: 'lost', livenessReason: 'no heartbeat for 40 s', livenessAt: '2026-01-02T03:04:05.678Z',
  }, {architecture: 'arm64', agentUrl: 'https://[fd00::3]:7071'}), node(33, {liveness: 'fenced'}, {agentUrl: 'unix:///run/agent.sock'}));
  return here;
}

describe('nodes', () => {
  it('are the fleet: capacity, availability, liveness, address', async () => {
    const {body} = await ask(await fleet(), 'GET', '/v1.24/nodes');
    const nodes = body as Record<string, Record<string, unknown>>[];
    expect(nodes[0]).toMatchObject({
      ID: 'node-id-1', Spec: {Labels: {zone: 'a', gpu: ''}, Role: 'worker', Availability: 'active'}, Status: {State: 'ready', Addr: '10.0.0.1'},
      Description: {Hostname: 'rack1', Platform: {Architecture: 'x86_64', OS: 'linux'}, Resources: {NanoCPUs: 2e9, MemoryBytes: 8e9}, Engine: {EngineVersion: '28.3.0+cetus.0.1.0', Labels: {disk: 'ssd'}}},
    });
    expect(nodes.map((n) => [n.Spec!.Availability, n.Status!.State, n.Status!.Addr, n.Status!.Message])).toEqual([
      ['active', 'ready', '10.0.0.1', undefined], ['pause', 'unknown', '10.0.0.2', undefined], ['drain', 'down', 'fd00::3', 'no heartbeat for 40 s'], ['active', 'down', '127.0.0.1', undefined],
    ]);
    expect(nodes[2]).toMatchObject({Version: {Index: Date.parse('2026-01-02T03:04:05.678Z')}, UpdatedAt: '2026-01-02T03:04:05.678Z', Description: {Platform: {Architecture: 'aarch64'}}});
    expect(nodes.some((n) => 'ManagerStatus' in n)).toBe(false);
  });

  it.each([
    [{}, ['rack1', 'rack2', 'rack3', 'rack33']],
    [{id: ['node-id-3']}, ['rack3', 'rack33']],
    [{name: ['rack2', 'rack33']}, ['rack2', 'rack33']],
    [{label: ['disk=ssd']}, ['rack1']],
    [{label: ['zone=a']}, []],
    [{'node.label': ['zone=a', 'gpu']}, ['rack1']],
    [{'node.label': ['zone=b']}, []],
    [{role: ['worker']}, ['rack1', 'rack2', 'rack3', 'rack33']],
    [{role: ['manager']}, []],
    [{role: ['Manager', 'WORKER'], name: ['rack1']}, ['rack1']],
    [{membership: ['accepted']}, ['rack1', 'rack2', 'rack3', 'rack33']],
    [{membership: ['pending']}, []],
  ])('%j finds %j', async (filters, names) => {
    const {body} = await ask(await fleet(), 'GET', `/nodes?filters=${encodeURIComponent(JSON.stringify(filters))}`);
    expect((body as {Description: {Hostname: string}}[]).map((n) => n.Description.Hostname)).toEqual(names);
  });

  it.each([[{zone: ['a']}, "invalid filter 'zone'"], [{role: ['king']}, "Invalid role filter: 'king'"], [{membership: ['x']}, "Invalid membership filter: 'x'"]])('%j is refused', async (filters, message) => {
    expect(await ask(await fleet(), 'GET', `/nodes?filters=${encodeURIComponent(JSON.stringify(filters))}`)).toMatchObject({status: 400, message});
  });

  it('are found by id, name, or a prefix of the id', async () => {
    const here = await fleet();
    const found = async (id: string): Promise<string | undefined> => ((await ask(here, 'GET', `/nodes/${id}`)).body as {Description?: {Hostname: string}}).Description?.Hostname;
    expect([await found('node-id-3'), await found('rack3'), await found('node-id-33'), await found('node-id-1')]).toEqual(['rack3', 'rack3', 'rack33', 'rack1']);
    expect(await ask(here, 'GET', '/nodes/nowhere')).toMatchObject({status: 404, message: 'node nowhere not found'});
    expect(await ask(here, 'GET', '/nodes/node-id-')).toMatchObject({status: 400, message: 'node node-id- is ambiguous (4 matches found)'});
  });

  it('are changed and removed by their operator only', async () => {
    const here = await fleet();
    expect(await ask(here, 'POST', '/nodes/rack1/update?version=1', {Availability: 'drain'})).toMatchObject({status: 400, message: 'node rack1 cannot be changed through the Docker API: the nodes of a datacenter are its operator\'s'});
    expect(await ask(here, 'DELETE', '/nodes/rack1?force=1')).toMatchObject({status: 400, message: expect.stringContaining('cannot be removed')});
    expect(await ask(here, 'DELETE', '/nodes/x')).toMatchObject({status: 404, message: 'node x not found'});
  });

  it('are counted by info, which stays out of swarm mode', async () => {
    const {body} = await ask(await fleet(), 'GET', '/info');
    expect((body as {Swarm: object}).Swarm).toMatchObject({LocalNodeState: 'inactive', ControlAvailable: false, NodeID: '', Nodes: 4});
  });
});

describe('plugins', () => {
  it.each([
    ['GET', '/plugins', undefined, 200, []],
    ['GET', `/plugins?filters=${encodeURIComponent('{"enabled":["true"],"capability":["volumedriver"]}')}`, undefined, 200, []],
  ])('%s %s: there are none', async (method, path, body, status, answer) => {
    expect(await ask(await world(), method, path, body)).toMatchObject({status, body: answer});
  });

  it.each([
    ['GET', `/plugins?filters=${encodeURIComponent('{"x":["y"]}')}`, undefined, 400, "invalid filter 'x'"],
    ['GET', `/plugins?filters=${encodeURIComponent('{"enabled":["y"]}')}`, undefined, 400, "invalid filter 'enabled=[y]'"],
    ['GET', '/plugins/me/p:1/json', undefined, 404, 'plugin "me/p:1" not found'],
    ['GET', '/plugins/privileges', undefined, 400, 'invalid reference format'],
    ['GET', '/plugins/privileges?remote=me/p', undefined, 400, 'plugin "me/p:latest" cannot be installed: Cetus has no plugins; its volume, network and log drivers are listed by "docker info"'],
    ['POST', '/plugins/pull?remote=me/p', undefined, 400, 'failed to parse privileges: EOF'],
    ['POST', '/plugins/pull?remote=ME', [], 400, 'invalid reference format: repository name must be lowercase'],
    ['POST', '/plugins/pull?remote=me/p&name=mine:1', [], 400, 'plugin "mine:1" cannot be installed'],
    ['DELETE', '/plugins/p', undefined, 404, 'plugin "p" not found'],
    ['POST', '/plugins/p/enable', undefined, 400, 'strconv.Atoi: parsing "": invalid syntax'],
    ['POST', '/plugins/p/enable?timeout=0', undefined, 404, 'plugin "p" not found'],
    ['POST', '/plugins/p/disable', undefined, 404, 'plugin "p" not found'],
    ['POST', '/plugins/p/upgrade?remote=p', [], 404, 'plugin "p:latest" not found'],
    ['POST', '/plugins/create?name=UP', undefined, 400, 'failed to parse reference UP: invalid reference format: repository name must be lowercase'],
    ['POST', '/plugins/create?name=p', undefined, 400, 'plugin "p:latest" cannot be installed'],
    ['POST', '/plugins/p/push', undefined, 404, 'plugin "p" not found'],
    ['POST', '/plugins/p/set', ['DEBUG=1'], 404, 'plugin "p" not found'],
    ['POST', '/plugins/p/set', {}, 400, 'a list of strings is expected'],
  ])('%s %s %j -> %i %s', async (method, path, body, status, message) => {
    expect(await ask(await world(), method, path, body)).toMatchObject({status, message: expect.stringContaining(message)});
  });

  it('create drops the archive that it does not want', async () => {
    const {url} = await world();
    const got = await request(url).post('/plugins/create?name=p').set('Content-Type', 'application/x-tar').send(Buffer.alloc(100_000).toString('latin1'));
    expect(got.status).toBe(400);
  });
});
