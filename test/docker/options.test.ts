/**
 * No silent option. The tables of fields, parameters and headers (lib/schema/options, lib/docker/options.ts) hold every name that the API's
 * description has; and each row's claim is tried: what is refused is refused by its name, what needs the operator's leave is refused without
 * it, and what is honoured changes what is stored or what a verb is told.
 */
import fs from 'node:fs';
import {join} from 'node:path';
import {Readable} from 'node:stream';
import WebSocket from 'ws';
import {silentLog} from '../../lib/base/log';
import {parseBody} from '../../lib/docker/body';
import {HEADERS, QUERIES} from '../../lib/docker/options';
import {withTable} from '../../lib/docker/options-table';
import {OPERATIONS} from '../../lib/docker/operations';
import {type DockerServer, createDockerServer} from '../../lib/docker/server';
import {BODIES, type BodyKind} from '../../lib/schema/options/bodies';
import type {Field, Struct, Wire} from '../../lib/schema/options/field';
import {createWorld, type World as Real} from '../datacenter/world';
import {fakeContainer} from './fake-datacenter';
import {BODY_SAMPLES, BODY_USES, QUERY_SAMPLES, type Json, type Use, merged} from './option-samples';
import api from './schema/engine-1.51-requests.json';
import {closeWorlds, type World, world} from './world';

interface Names { [name: string]: Names }
const described = api.operations as Record<string, {query?: string[]; headers?: string[]}>;
const bodies = api.bodies as unknown as Record<string, Names>;

/** Fields and parameters that the description does not have, and why they are known all the same. */
const BEYOND: Record<string, string> = {
  'ContainerCreate HostConfig.KernelMemory': 'of the API until 1.41',
  'ContainerUpdate KernelMemory': 'of the API until 1.41',
  'ContainerCreate HostConfig.Mounts[].ClusterOptions': 'the Engine\'s own client sends it',
  'ContainerExec Detach': 'the docker CLI sends it',
  'NetworkCreate CheckDuplicate': 'of the API until 1.43; clients still send it',
  'ImageCommit HostConfig': 'of the body that commit shares with create',
  'ImageCommit NetworkingConfig': 'of the body that commit shares with create',
  'SystemAuth auth': 'clients keep it and send it',
  'SystemAuth identitytoken': 'clients keep it and send it',
  'SystemAuth registrytoken': 'clients keep it and send it',
  'ContainerList ?since': 'of the API until 1.23',
  'ContainerList ?before': 'of the API until 1.23',
  'ContainerLogs ?details': 'the docker CLI sends it',
  'ContainerStart ?checkpoint': 'experimental, never described',
  'ContainerStart ?checkpoint-dir': 'experimental, never described',
  'ImageList ?filter': 'of the API until 1.40',
  'SystemDataUsage ?verbose': 'of newer APIs',
  'BuildCancel ?id': 'of an operation that the description leaves out',
  ...Object.fromEntries(['buildid', 'session', 'cgroupparent', 'cpusetmems', 'isolation', 'securityopt', 'ulimits'].map((name) => [`ImageBuild ?${name}`, 'the docker CLI sends it'])),
};

const KINDS = Object.fromEntries(Object.entries(BODY_USES).map(([kind, use]) => [use.operation, kind])) as Record<string, BodyKind>;

/** The struct that a field's value is made of, through lists and maps. */
function inner(wire: Wire): {struct: Struct; mark: string} | undefined {
  if (wire.kind === 'struct') return {struct: wire, mark: ''};
  if (wire.kind !== 'list' && wire.kind !== 'map') return undefined;
  const found = inner(wire.of);
  return found && {...found, mark: `${wire.kind === 'list' ? '[]' : '{}'}${found.mark}`};
}

interface Row { path: string; field: Field }
/** Every row down to the leaves; below a refused or an ignored one there are none. */
function rows(struct: Struct, prefix = ''): Row[] {
  return Object.entries(struct.fields).flatMap(([name, field]): Row[] => {
    const path = `${prefix}${name}`;
    const below = inner(field.wire);
    if (!below || field.disposition.is === 'refused' || field.disposition.is === 'ignored') return [{path, field}];
    return [{path, field}, ...rows(below.struct, `${path}${below.mark}.`)];
  });
}
const isLeaf = ({field}: Row): boolean => inner(field.wire) === undefined;
const plain = (path: string): string => path.replace(/\[\]|\{\}/g, '');

function flat(names: Names, prefix = ''): string[] {
  return Object.entries(names).flatMap(([name, below]) => [`${prefix}${name}`, ...flat(below, `${prefix}${name}.`)]);
}

describe('the tables have every name of the API, and no others', () => {
  it.each(Object.keys(KINDS))('%s: the fields of its body', (operation) => {
    const table = rows(BODIES[KINDS[operation]!]);
    const stops = table.filter(({field}) => ['refused', 'ignored'].includes(field.disposition.is)).map(({path}) => `${plain(path)}.`);
    const known = flat(bodies[operation] ?? {}).filter((path) => !stops.some((stop) => path.startsWith(stop)));
    const own = table.filter(({path}) => BEYOND[`${operation} ${path}`] === undefined && !Object.keys(BEYOND).some((beyond) => `${operation} ${path}`.startsWith(`${beyond}.`)));
    expect(own.map(({path}) => plain(path)).sort()).toEqual(known.sort());
  });

  it('there is no body that nobody describes', () => expect(Object.keys(bodies).filter((operation) => !KINDS[operation])).toEqual([]));

  it.each(OPERATIONS.map(({id}) => id))('%s: its parameters and headers', (id) => {
    const own = Object.keys(QUERIES[id] ?? {}).filter((name) => BEYOND[`${id} ?${name}`] === undefined);
    expect(own.sort()).toEqual([...described[id === 'SystemPingHead' ? 'SystemPing' : id]?.query ?? []].sort());
    expect(Object.keys(HEADERS[id] ?? {}).sort()).toEqual([...described[id]?.headers ?? []].filter((name) => name.toLowerCase() !== 'content-type').sort());
  });

  it('nothing beyond the API is listed that is in it', () => {
    for (const key of Object.keys(BEYOND)) {
      const [operation, name] = key.split(' ') as [string, string];
      if (name.startsWith('?')) expect({key, listed: described[operation]?.query?.includes(name.slice(1)) ?? false}).toEqual({key, listed: false});
      else expect({key, listed: flat(bodies[operation] ?? {}).includes(plain(name))}).toEqual({key, listed: false});
    }
  });
});

it('README.md shows the tables as they are (node tools/render-options.mjs writes it)', () => {
  const document = fs.readFileSync(join(__dirname, '../../lib/docker/README.md'), 'utf8');
  expect(withTable(document)).toBe(document);
});

/** A value that asks for something. */
function asking(wire: Wire): unknown {
  switch (wire.kind) {
    case 'string': return 'zz';
    case 'bool': return true;
    case 'int': return 7;
    case 'words': return ['zz'];
    case 'empty': return {zz: 1};
    case 'list': return Array.from({length: wire.exactly ?? 1}, () => asking(wire.of));
    case 'map': return {zz: asking(wire.of)};
    case 'struct': return Object.fromEntries(Object.entries(wire.fields).slice(0, 1).map(([name, field]) => [name, asking(field.wire)]));
  }
}

/** `value` at "HostConfig.Mounts[].Type": {HostConfig: {Mounts: [{Type: value}]}}. A map's key is "zz", where it need not be a port. */
function placed(path: string, value: unknown): Json {
  const [first, ...rest] = path.split('.') as [string, ...string[]];
  let below: unknown = rest.length ? placed(rest.join('.'), value) : value;
  for (const mark of (first.match(/\[\]|\{\}/g) ?? []).reverse()) below = mark === '[]' ? [below] : {[keyIn(first)]: below};
  return {[plain(first)]: below};
}

const keyIn = (name: string): string => (name.startsWith('PortBindings') ? '80/tcp' : 'zz');

const shown = (path: string): string => path.replace(/\[\]/g, '[0]').replace(/\{\}/g, '[zz]');

async function send(url: string, method: string, path: string, body?: unknown): Promise<{status: number; text: string; message: string}> {
  const got = await fetch(`${url}${path}`, {method, ...(body === undefined ? {} : {headers: {'Content-Type': 'application/json'}, body: JSON.stringify(body)})});
  const text = await got.text();
  let message = '';
  try { message = (JSON.parse(text) as {message?: string}).message ?? ''; } catch { /* a stream */ }
  return {status: got.status, text, message};
}

const every = (is: string): [BodyKind, string, Field][] => Object.entries(BODIES).flatMap(([kind, struct]) => (BODY_USES[kind] ? rows(struct) : []).filter(({field}) => field.disposition.is === is).map(({path, field}): [BodyKind, string, Field] => [kind as BodyKind, path, field]));

describe('what is refused is refused by name, before any verb', () => {
  let here: World;
  beforeAll(async () => {
    here = await world();
    here.fake.add(fakeContainer({name: 'c'}));
  });
  afterAll(closeWorlds);

  it.each(every('refused'))('%s %s', async (kind, path, field) => {
    const use = BODY_USES[kind]!;
    here.fake.calls.length = 0;
    const got = await send(here.url, 'POST', use.path.replace('{id}', 'web'), merged(use.body, placed(path, asking(field.wire))));
    expect(got.status).toBe(400);
    expect(got.message).toContain(shown(path));
    expect(here.fake.calls).toEqual([]);
    for (const neutral of (field.disposition as {neutral?: unknown[]}).neutral ?? [])
      expect((await send(here.url, 'POST', use.path.replace('{id}', 'web'), merged(use.body, placed(path, neutral)))).message).not.toContain(shown(path));
  });

  const parameters = Object.entries(QUERIES).flatMap(([id, table]) => Object.entries(table).filter(([, d]) => d.is === 'refused').map(([name]): [string, string] => [id, name]));
  it.each(parameters)('%s ?%s', async (id, name) => {
    const {method, path} = OPERATIONS.find((operation) => operation.id === id)!;
    here.fake.calls.length = 0;
    const got = await send(here.url, method, `${path.replace(/\{\w+\}/, 'c')}?${name}=zz`, method === 'POST' ? {} : undefined);
    expect(got.status).toBe(400);
    expect(got.message).toContain(`"${name}"`);
    expect(here.fake.calls).toEqual([]);
  });
});

describe('what is ignored never gets behind the edge', () => {
  it.each(every('ignored'))('%s %s', (kind, path, field) => {
    const {body} = BODY_USES[kind]!;
    expect(parseBody(kind, merged(body, placed(path, asking(field.wire))))).toEqual(parseBody(kind, merged(body, placed(path, null))));
  });
});

/** The edge over the real verbs, chains and a store in memory. */
interface Whole { real: Real; edge: DockerServer; url: string }
async function whole(config: Parameters<typeof createWorld>[0]): Promise<Whole> {
  const real = await createWorld(config);
  // A registry that answers with what it was asked, and by whom.
  real.agent.ask = (question, auth) => ({identityToken: JSON.stringify([question, auth])});
  await real.image('default', 'docker.io/library/busybox:latest');
  await real.image('default', 'docker.io/library/other:latest');
  const edge = createDockerServer({datacenter: real.dc, log: silentLog(), config: {version: '0'}});
  const {port} = await edge.listen({host: '127.0.0.1', port: 0}) as {port: number};
  const url = `http://127.0.0.1:${port}`;
  const made = async (path: string, body: object): Promise<void> => expect((await send(url, 'POST', path, body)).status).toBe(201);
  await made('/networks/create', {Name: 'zz', IPAM: {Config: [{Subnet: '10.77.0.0/24'}]}});
  await made('/containers/create?name=other', {Image: 'busybox', Volumes: {'/from-other': {}}});
  await made('/containers/create?name=web', {Image: 'busybox', HostConfig: {Memory: 64 * 2 ** 20}});
  expect((await send(url, 'POST', '/containers/web/start')).status).toBe(204);
  return {real, edge, url};
}
const endWhole = async ({real, edge}: Whole): Promise<void> => {
  await edge.close();
  await real.stop();
};

/** What two requests leave behind is compared without what is new each time. */
const without = (value: unknown): string => JSON.stringify(value)
  .replace(/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g, 'UUID').replace(/\b[0-9a-f]{64}\b/g, 'ID').replace(/\b[0-9a-f]{12}\b/g, 'SHORT')
  .replace(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, 'TIME').replace(/"\d{19}"/g, 'NS').replace(/(accountName":"default|"(containerN|n)ame":"|"name":")\/?[a-z]+_[a-z]+\d*"/g, '$1NAMED"');

describe('what is honoured changes what is stored', () => {
  let here: Whole;
  beforeAll(async () => { here = await whole({allowPrivileged: true, allowBinds: 'all', allowHostNetwork: true}); });
  afterAll(() => endWhole(here));

  const effect = async (use: Use, body: Json): Promise<string> => {
    const {real, url} = here;
    const spied = jest.spyOn(real.dc.execs, use.operation === 'ExecStart' ? 'start' : 'create');
    const id = async (path: string, given: object): Promise<string> => (JSON.parse((await send(url, 'POST', path, given)).text) as {Id: string}).Id;
    const at = use.path.replace('{id}', use.operation === 'ExecStart' ? await id('/containers/web/exec', {Cmd: ['x']})
      : use.operation === 'ContainerUpdate' ? await id('/containers/create', {Image: 'busybox', HostConfig: {Memory: 64 * 2 ** 20}}) : 'web');
    real.ran.length = 0;
    if (use.operation === 'ExecStart') spied.mockImplementationOnce(async () => ({stream: null, tty: false}));
    const got = await send(url, 'POST', at, body);
    const told = use.operation === 'ContainerExec' || use.operation === 'ExecStart' ? spied.mock.calls.map((call) => call.slice(2)) : use.operation === 'SystemAuth' ? got.text : real.ran.map(({workflow, params}) => ({workflow, params}));
    spied.mockRestore();
    for (const path of use.undo ?? []) await send(url, path.split(' ')[0]!, path.split(' ')[1]!, use.undoBody);
    return without([got.status >= 400 ? `${got.status} ${got.message}` : got.status, told]);
  };

  it.each([...every('honoured'), ...every('gated')].filter(([, path, field]) => isLeaf({path, field})))('%s %s', async (kind, path, field) => {
    const use = BODY_USES[kind]!;
    const sample = BODY_SAMPLES[`${use.operation} ${path}`] ?? BODY_SAMPLES[path] ?? {};
    const base = merged(use.body, sample.with ?? {});
    const before = await effect(use, base);
    const after = await effect(use, merged(base, placed(path, sample.value ?? asking(field.wire))));
    if (sample.fails) expect(after).toMatch(sample.fails);
    else expect(after.slice(0, 4)).toMatch(/^\[2\d\d$/);
    expect(before.slice(0, 4)).toMatch(/^\[2\d\d$/);
    expect(after).not.toBe(before);
  });
});

describe('what needs the operator\'s leave is refused without it, by name', () => {
  let here: Whole;
  beforeAll(async () => { here = await whole({allowPrivileged: false, allowBinds: 'off', allowHostNetwork: false}); });
  afterAll(() => endWhole(here));

  it.each(every('gated').filter(([kind]) => kind === 'containerCreate' || kind === 'containerUpdate'))('%s %s', async (kind, path, field) => {
    const use = BODY_USES[kind]!;
    const got = await send(here.url, 'POST', use.path.replace('{id}', 'web'), merged(use.body, placed(path, asking(field.wire))));
    expect({status: got.status, named: got.message.includes(path.split('.').at(-1)!)}).toEqual({status: 403, named: true});
  });
});

describe('parameters that are honoured change what the verb is told, or the answer', () => {
  let here: World;
  beforeEach(async () => {
    here = await world();
    const {fake} = here;
    const held = fake.add(fakeContainer({name: 'c'}));
    fake.start(held);
    fake.execs.set('e', {exec: {id: 'e', account: 'default', containerId: 'c', nodeId: 'n1', config: {Cmd: ['x']}, running: true, exitCode: null, pid: 1, createdAt: ''}, process: held.process});
  });
  afterEach(closeWorlds);

  const effect = async (id: string, query: string, version: string): Promise<string> => {
    const {method, path} = OPERATIONS.find((operation) => operation.id === id)!;
    here.fake.calls.length = 0;
    const leave = new AbortController();
    const at = path.replace('{id}', path.startsWith('/exec') ? 'e' : path.startsWith('/nodes') ? 'node1' : path.startsWith('/networks') ? 'bridge' : 'c').replace('{name}', path.startsWith('/images') ? 'busybox' : 'c');
    const body = method === 'PUT' && path.includes('archive') ? {body: Readable.toWeb(Readable.from(['tar'])) as never, duplex: 'half'} : method === 'POST' && /create$|update$|pull$|upgrade$/.test(path) && !path.startsWith('/images') && !path.startsWith('/plugins/create')
      ? {headers: {'Content-Type': 'application/json'}, body: path.startsWith('/plugins') ? '[]' : '{"Image":"x"}'} : {};
    if (id === 'ContainerAttachWebsocket') return byWebSocket(`${here.url}/v${version}${at}?${query}`);
    const got = await fetch(`${here.url}/v${version}${at}?${query}`, {method, signal: leave.signal, ...body} as RequestInit);
    // Streams without an end are told apart by what the verb heard.
    const text = id === 'ContainerAttach' || id === 'ContainerWait' || /follow=/.test(query) || (id === 'SystemEvents' && !query.includes('until')) ? '' : await got.text();
    leave.abort();
    // What a verb was told says more than an answer, which may differ because the first request has changed something.
    const told = here.fake.calls.map(({verb, args}) => [verb, JSON.stringify(args, (_key, value: unknown) => (typeof value === 'bigint' ? `${value}n` : value))]);
    return without(told.length ? told : [got.status, text]);
  };

  async function byWebSocket(url: string): Promise<string> {
    const client = new WebSocket(url);
    await new Promise((resolve, reject) => client.once('open', resolve).once('error', reject));
    client.terminate();
    return JSON.stringify(here.fake.calls);
  }

  const honoured = Object.entries(QUERIES).flatMap(([id, table]) => Object.entries(table).filter(([, d]) => d.is === 'honoured').map(([name]): [string, string] => [id, name]));
  it.each(honoured)('%s ?%s', async (id, name) => {
    const sample = QUERY_SAMPLES[`${id} ${name}`] ?? QUERY_SAMPLES[`${id} *`] ?? (QUERY_SAMPLES[name] as {value: string; with?: string; api?: string} | undefined);
    expect({id, name, sampled: sample !== undefined}).toEqual({id, name, sampled: true});
    const base = sample!.with ?? '';
    const version = sample!.api ?? '1.51';
    const before = await effect(id, base, version);
    expect(await effect(id, `${base}${base ? '&' : ''}${name}=${encodeURIComponent(sample!.value)}`, version)).not.toBe(before);
  });
});
