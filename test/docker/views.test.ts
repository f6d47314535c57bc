/** No answer out of the API's schema: every JSON answer of the edge, over objects that use every corner of the stored types. */
import Ajv from 'ajv';
import request from 'supertest';
import {formatNs, systemClock} from '../../lib/base/clock';
import type {Container} from '../../lib/schema/container';
import {statusText} from '../../lib/docker/views/container';
import {familiar} from '../../lib/docker/views/names';
import {humanDuration} from '../../lib/docker/views/time';
import {fakeContainer, fakeImage, fakeNetwork, fakeVolume} from './fake-datacenter';
import engine from './schema/engine-1.51-answers.json';
import {type World, closeWorlds, world} from './world';

const ajv = new Ajv({strict: false, allErrors: true, validateFormats: false});
ajv.addSchema({$id: 'engine', definitions: engine.definitions});
const answers = engine.answers as unknown as Record<string, {status: number; schema: object}>;
const validators = Object.fromEntries(Object.entries(answers).map(([id, {schema}]) => [id, ajv.compile(JSON.parse(JSON.stringify(schema).replaceAll('"#/definitions/', '"engine#/definitions/')) as object)]));

function expectInSchema(operation: string, status: number, value: unknown): void {
  expect(status).toBe(answers[operation]!.status);
  const validate = validators[operation]!;
  const fits = validate(value);
  expect(fits ? [] : validate.errors!.map((e) => `${e.instancePath} ${e.message}`)).toEqual([]);
}

afterEach(closeWorlds);

const ago = (seconds: number): string => formatNs(systemClock.nowNs() - BigInt(seconds) * 1_000_000_000n);

/** One container of each status, and one that uses every option. */
function furnish({fake}: World): {full: Container; bare: Container} {
  const net = fakeNetwork('net');
  fake.networks.push(net, {...fakeNetwork('none'), driver: 'null', subnet: '', gateway: ''}, {...net, name: 'x', ipRange: '172.18.1.0/24', auxAddresses: {a: '172.18.0.9'}, ipamOptions: {o: '1'}, labels: {l: '1'}});
  fake.volumes.push(fakeVolume('data'), {...fakeVolume('more'), labels: {a: 'b'}, options: {type: 'nfs'}});
  fake.images.push(fakeImage([]), fakeImage(['docker.io/me/app:1', 'r:5000/x:2'], {parent: `sha256:${'1'.repeat(64)}`, config: {architecture: 'arm64', variant: 'v8', os: 'linux', rootfs: {type: 'layers', diff_ids: []}, config: {ExposedPorts: {'80/tcp': {}}, Volumes: {'/v': {}}, Entrypoint: ['e'], OnBuild: ['RUN x'], Labels: {a: 'b'}, StopSignal: 'SIGINT', Shell: ['sh'], Healthcheck: {Test: ['CMD', 'x']}, User: 'u'}}}));
  for (const status of ['created', 'paused', 'restarting', 'exited', 'removing', 'dead'] as const) {
    const c = fakeContainer({name: status, status}, {Cmd: ['sh', '-c', 'a b']});
    if (status !== 'created') c.observation = {...c.observation, startedAt: ago(100), finishedAt: ago(50), exitCode: 2};
    fake.add(c);
  }
  const full = fakeContainer({
    name: 'full', status: 'running', networks: {net: {networkId: net.id, settings: {Aliases: ['w'], IPAMConfig: {IPv4Address: '172.18.0.5'}}}},
    attachments: [{networkId: net.id, networkName: 'net', endpointId: 'f'.repeat(64), address: '172.18.0.5', prefixLength: 16, gateway: '172.18.0.1', mac: '02:42:ac:12:00:05', aliases: ['full', 'w'], isDefaultRoute: true, internal: false}],
    publishedPorts: [{protocol: 'tcp', containerPort: 80, hostIp: '0.0.0.0', hostPort: 8080}, {protocol: 'udp', containerPort: 53, hostIp: '127.0.0.1', hostPort: 5353}],
  }, {
    Image: 'busybox', Entrypoint: ['/init'], Cmd: ['a', 'b c'], Hostname: 'h', Env: ['A=1'], ExposedPorts: {'80/tcp': {}, '9000': {}}, Labels: {l: '1'}, StopSignal: 'SIGINT', StopTimeout: 3, Shell: ['sh'],
    Healthcheck: {Test: ['CMD', 'true'], Interval: 1e9}, Volumes: {'/v': {}}, MacAddress: '02:42:ac:12:00:05', OnBuild: ['RUN x'],
    HostConfig: {
      Binds: ['data:/data', '/s:/t:ro'], PortBindings: {'80/tcp': [{HostPort: '8080'}], '81/tcp': null}, RestartPolicy: {Name: 'on-failure', MaximumRetryCount: 3}, Tmpfs: {'/run': 'size=1m'}, Sysctls: {a: 'b'},
      Mounts: [{Type: 'bind', Source: '/s', Target: '/t', BindOptions: {Propagation: '', NonRecursive: true}}], CgroupnsMode: '', Init: true, Annotations: {x: 'y'}, Ulimits: [{Name: 'nofile', Soft: 1, Hard: 2}],
      Devices: [{PathOnHost: '/dev/null', PathInContainer: '/dev/null', CgroupPermissions: 'rwm'}], ConsoleSize: [24, 80], MemorySwappiness: 3, OomKillDisable: null, PidsLimit: 5,
    },
  });
  full.spec.mounts = [
    {type: 'volume', volumeId: 'v', name: 'data', destination: '/data', readOnly: false, noCopy: false, anonymous: false},
    {type: 'volume', volumeId: 'w', name: 'lost', destination: '/lost', readOnly: true, noCopy: false, anonymous: true},
    {type: 'bind', source: '/s', destination: '/t', readOnly: true, propagation: '', createSource: false},
    {type: 'tmpfs', destination: '/run', options: []}, {type: 'tmpfs', destination: '/tmp2', options: []},
  ];
  full.observation = {
    ...full.observation, status: 'running', pid: 5, startedAt: ago(5),
    health: {status: 'healthy', failingStreak: 0, log: [{start: ago(2), end: ago(1), exitCode: 0, output: 'ok'}]},
  };
  fake.add(full);
  const bare = fake.find('created').container;
  return {full, bare};
}

describe('every answer fits the schema', () => {
  it.each([
    ['ContainerList', 'GET', '/containers/json?all=1'], ['ContainerList', 'GET', '/containers/json?all=1&size=1'],
    ['ContainerInspect', 'GET', '/containers/full/json?size=1'], ['ContainerInspect', 'GET', '/containers/created/json'], ['ContainerInspect', 'GET', '/containers/exited/json'],
    ['ContainerInspect', 'GET', '/containers/dead/json'], ['ContainerTop', 'GET', '/containers/full/top'], ['ContainerPrune', 'POST', '/containers/prune'],
    ['ContainerWait', 'POST', '/containers/exited/wait'], ['ImageList', 'GET', '/images/json'], ['ImageInspect', 'GET', '/images/me/app:1/json'], ['ImageInspect', 'GET', '/images/busybox/json'],
    ['ImageHistory', 'GET', '/images/busybox/history'], ['ImageHistory', 'GET', '/images/me/app:1/history'], ['ImageDelete', 'DELETE', '/images/busybox'], ['ImagePrune', 'POST', '/images/prune'],
    ['SystemInfo', 'GET', '/info'], ['SystemVersion', 'GET', '/version'], ['SystemDataUsage', 'GET', '/system/df'], ['VolumeList', 'GET', '/volumes'], ['VolumeInspect', 'GET', '/volumes/data'],
    ['VolumePrune', 'POST', '/volumes/prune'], ['NetworkList', 'GET', '/networks'], ['NetworkInspect', 'GET', '/networks/net'], ['NetworkPrune', 'POST', '/networks/prune'],
    ['NodeList', 'GET', '/nodes'], ['NodeInspect', 'GET', '/nodes/node1'], ['PluginList', 'GET', '/plugins'],
  ])('%s: %s %s', async (operation, method, path) => {
    const made = await world();
    furnish(made);
    const got = await fetch(`${made.url}${path}`, {method});
    // Not got.json(): its objects come from another realm, whose {} ajv does not find equal to ours.
    expectInSchema(operation, got.status, JSON.parse(await got.text()));
  });

  it.each([
    ['ContainerCreate', '/containers/create', {Image: 'x'}], ['ContainerUpdate', '/containers/full/update', {Memory: 1}], ['ContainerExec', '/containers/full/exec', {Cmd: ['x']}],
    ['VolumeCreate', '/volumes/create', {Name: 'new'}], ['NetworkCreate', '/networks/create', {Name: 'new'}],
  ])('%s: POST %s', async (operation, path, body) => {
    const made = await world();
    furnish(made);
    const got = await request(made.url).post(path).send(body);
    expectInSchema(operation, got.status, got.body);
  });

  it('ExecInspect, before and after', async () => {
    const made = await world();
    furnish(made);
    const {Id} = (await request(made.url).post('/containers/full/exec').send({Cmd: ['exit', '3'], User: 'u', Tty: true})).body as {Id: string};
    const before = await request(made.url).get(`/exec/${Id}/json`);
    expectInSchema('ExecInspect', before.status, before.body);
    expect(before.body).toMatchObject({Running: false, ExitCode: null, ProcessConfig: {entrypoint: 'exit', arguments: ['3'], tty: true, user: 'u'}});
  });

  it('SystemEvents', async () => {
    const {url, fake} = await world();
    for (const type of ['container', 'image', 'network', 'volume', 'daemon', 'builder', 'node'] as const)
      fake.events.push({account: 'default', type, action: 'create', actorId: 'x', attributes: {name: 'n'}, timeNs: '1700000000000000001'});
    const got = await fetch(`${url}/events?until=1800000000`);
    const rows = (await got.text()).trim().split('\n');
    expect(rows).toHaveLength(7);
    for (const row of rows) expectInSchema('SystemEvents', 200, JSON.parse(row));
  });

  it('the schema has teeth', () => {
    expect(() => expectInSchema('ContainerList', 200, [{Id: 'short', State: 'asleep'}])).toThrow();
  });
});

describe('what differs from the Engine, as README.md lists it', () => {
  it('files of a node have no path for clients, and the graph driver names the node', async () => {
    const made = await world();
    const {full} = furnish(made);
    expect((await request(made.url).get('/containers/full/json')).body).toMatchObject({
      LogPath: '', HostsPath: '', ResolvConfPath: '', HostnamePath: '', Driver: 'overlayfs', GraphDriver: {Name: 'overlayfs', Data: {'com.cetus.node': full.node}},
    });
  });

  it('shared sizes are not computed, and there is no build cache', async () => {
    const {url} = await world();
    const images = (await request(url).get('/images/json')).body as {SharedSize: number}[];
    expect(images.map((image) => image.SharedSize)).toEqual([-1]);
    expect((await request(url).get('/system/df')).body).toMatchObject({BuildCache: []});
  });

  it('ps shows the image as it was asked for, also when its name is another one\'s by now', async () => {
    const {url, fake} = await world();
    fake.add(fakeContainer({name: 'c', imageReference: 'busybox', imageId: `sha256:${'0'.repeat(64)}`}));
    expect((await request(url).get('/containers/json?all=1')).body).toMatchObject([{Image: 'busybox', ImageID: `sha256:${'0'.repeat(64)}`}]);
  });
});

describe('containers', () => {
  it('a row of ps', async () => {
    const made = await world();
    const {full} = furnish(made);
    const rows = (await request(made.url).get('/containers/json?all=1')).body as {Names: string[]}[];
    expect(rows.find((row) => row.Names[0] === '/full')).toMatchObject({
      Id: full.id, Image: 'busybox', Command: "/init a 'b c'", State: 'running', Status: 'Up 5 seconds (healthy)',
      Ports: [{IP: '0.0.0.0', PrivatePort: 80, PublicPort: 8080, Type: 'tcp'}, {IP: '127.0.0.1', PrivatePort: 53, PublicPort: 5353, Type: 'udp'}, {PrivatePort: 9000, Type: 'tcp'}],
      NetworkSettings: {Networks: {net: {IPAddress: '172.18.0.5', EndpointID: 'f'.repeat(64)}}}, HostConfig: {NetworkMode: 'bridge', Annotations: {x: 'y'}},
    });
    expect(rows.find((row) => row.Names[0] === '/exited')).toMatchObject({Ports: [], Status: 'Exited (2) 50 seconds ago'});
  });

  it('inspect: mounts with their places, ports, state', async () => {
    const made = await world();
    furnish(made);
    const {body} = await request(made.url).get('/containers/full/json');
    expect(body).toMatchObject({
      Path: '/init', Args: ['a', 'b c'], Name: '/full', State: {Running: true, Pid: 5, Health: {Status: 'healthy', Log: [{ExitCode: 0, Output: 'ok'}]}},
      Mounts: [
        {Type: 'volume', Name: 'data', Source: '/volumes/data', Destination: '/data', RW: true, Driver: 'local', Mode: 'z'}, {Type: 'volume', Name: 'lost', Source: '', RW: false, Mode: 'z'},
        {Type: 'bind', Source: '/s', Destination: '/t', RW: false, Mode: 'ro', Propagation: 'rprivate'}, {Type: 'tmpfs', Destination: '/tmp2'},
      ],
      NetworkSettings: {Ports: {'80/tcp': [{HostIp: '0.0.0.0', HostPort: '8080'}], '9000/tcp': null, '53/udp': [{HostIp: '127.0.0.1', HostPort: '5353'}]}},
      HostConfig: {CgroupnsMode: 'host', RestartPolicy: {Name: 'on-failure', MaximumRetryCount: 3}, PortBindings: {'80/tcp': [{HostIp: '', HostPort: '8080'}]}, IpcMode: 'private', ShmSize: 67108864},
    });
  });

  it('inspect: the execs that have not ended', async () => {
    const made = await world();
    furnish(made);
    expect((await request(made.url).get('/containers/full/json')).body).toMatchObject({ExecIDs: null});
    const {Id} = (await request(made.url).post('/containers/full/exec').send({Cmd: ['cat']})).body as {Id: string};
    const {body} = await request(made.url).get('/containers/full/json');
    expectInSchema('ContainerInspect', 200, body);
    expect(body).toMatchObject({ExecIDs: [Id]});
  });

  it('inspect: its own names are among the aliases for clients before 1.45', async () => {
    const made = await world();
    const {full} = furnish(made);
    const aliases = async (version: string): Promise<unknown> =>
      ((await request(made.url).get(`/${version}/containers/full/json`)).body as {NetworkSettings: {Networks: Record<string, {Aliases: unknown}>}}).NetworkSettings.Networks['net']!.Aliases;
    expect(await aliases('v1.44')).toEqual(['w', full.id.slice(0, 12), 'h']);
    expect(await aliases('v1.45')).toEqual(['w']);
  });

  it.each([[0, null], [-1, null], [7, 7]])('a limit of %i processes is shown as %j', async (asked, shown) => {
    const made = await world();
    const {full} = furnish(made);
    full.spec.hostConfig.PidsLimit = asked;
    expect((await request(made.url).get('/containers/full/json')).body).toMatchObject({HostConfig: {PidsLimit: shown}});
  });

  const status = (over: Partial<Container>, observation: Partial<Container['observation']>): string => {
    const c = fakeContainer(over);
    return statusText({...c, observation: {...c.observation, ...observation}}, Date.parse('2024-01-01T12:00:00Z'));
  };
  it.each([
    ['running', {startedAt: '2024-01-01T11:59:55.5Z'}, 'Up 4 seconds'],
    ['running', {startedAt: '2024-01-01T11:00:00Z', health: {status: 'starting', failingStreak: 0, log: []}}, 'Up About an hour (health: starting)'],
    ['running', {startedAt: '2024-01-01T11:00:00Z', health: {status: 'unhealthy', failingStreak: 1, log: []}}, 'Up About an hour (unhealthy)'],
    ['paused', {startedAt: '2024-01-01T11:58:00Z'}, 'Up 2 minutes (Paused)'],
    ['restarting', {exitCode: 1, finishedAt: '2024-01-01T11:59:59Z'}, 'Restarting (1) 1 second ago'],
    ['exited', {exitCode: 137, finishedAt: '2024-01-01T11:58:59Z'}, 'Exited (137) About a minute ago'],
    ['created', {}, 'Created'], ['dead', {}, 'Dead'], ['removing', {}, 'Removal In Progress'],
  ] as const)('%s %j is "%s"', (state, observation, text) => {
    expect(status({status: state}, observation as Partial<Container['observation']>)).toBe(text);
  });

  it.each([
    [0, 'Less than a second'], [999, 'Less than a second'], [1000, '1 second'], [59_000, '59 seconds'], [60_000, 'About a minute'], [119_000, 'About a minute'], [120_000, '2 minutes'],
    [46 * 60_000, '46 minutes'], [60 * 60_000, 'About an hour'], [90 * 60_000, '2 hours'], [47 * 3_600_000, '47 hours'], [48 * 3_600_000, '2 days'], [13 * 86_400_000, '13 days'],
    [14 * 86_400_000, '2 weeks'], [60 * 86_400_000, '2 months'], [729 * 86_400_000, '24 months'], [730 * 86_400_000, '2 years'],
  ])('%i ms are "%s"', (ms, text) => {
    expect(humanDuration(ms)).toBe(text);
  });
});

it.each([
  ['docker.io/library/busybox:latest', 'busybox:latest'], ['docker.io/me/app:1', 'me/app:1'], ['localhost:5000/a:1', 'localhost:5000/a:1'],
  [`docker.io/library/busybox@sha256:${'a'.repeat(64)}`, `busybox@sha256:${'a'.repeat(64)}`], ['!', '!'],
])('%s is shown as %s', (stored, shown) => {
  expect(familiar(stored)).toBe(shown);
});
