/** From request to the params of container.provision, and every refusal by its words. */
import type {ProvisionParams} from '../../lib/schema/chains';
import type {CreateContainerBody} from '../../lib/schema/docker';
import {createWorld, failure, type World} from './world';

let world: World;
beforeEach(async () => {
  world = await createWorld();
  await world.image('default', 'docker.io/library/busybox:latest');
});
afterEach(() => world.stop());

const create = (body: CreateContainerBody, platform?: string): Promise<{id: string}> => world.dc.containers.create(world.caller(), 'web', {Image: 'busybox', ...body}, platform);
const made = async (body: CreateContainerBody): Promise<ProvisionParams> => {
  await create(body);
  return world.ran.at(-1)!.params as ProvisionParams;
};

test('request over image', async () => {
  const {container} = await made({Env: ['A=1', 'PATH'], Labels: {x: 'y'}, ExposedPorts: {'90/udp': {}}, HostConfig: {PublishAllPorts: true}});
  expect(container.spec.config).toMatchObject({Cmd: ['sh'], Env: ['A=1'], Labels: {x: 'y'}, ExposedPorts: {'80/tcp': {}, '90/udp': {}}, Hostname: container.id.slice(0, 12)});
  expect(container.requestedPorts).toEqual([{protocol: 'tcp', containerPort: 80, hostIp: '', hostPort: 0}, {protocol: 'udp', containerPort: 90, hostIp: '', hostPort: 0}]);
  expect(container.spec.hostConfig).toMatchObject({NetworkMode: 'bridge', RestartPolicy: {Name: 'no'}, ShmSize: 64 * 2 ** 20, IpcMode: 'private'});
  expect(container.networks['bridge']!.networkId).toMatch(/^[0-9a-f]{64}$/);
  expect(container.status).toBe('created');
});

test('ports published on the host\'s own network are discarded, and it is said', async () => {
  const {warnings} = await world.dc.containers.create(world.caller(), 'hosted', {Image: 'busybox', HostConfig: {NetworkMode: 'host', PortBindings: {'80/tcp': [{HostPort: '80'}]}}});
  expect(warnings).toEqual(['Published ports are discarded when using host network mode']);
});

test('host ports: one, any, any of a range', async () => {
  const {container, placement} = await made({HostConfig: {PortBindings: {'80/tcp': [{HostIp: '127.0.0.1', HostPort: ''}, {HostPort: '8080'}, {HostPort: '8000-8005'}, {HostPort: '0'}, {HostPort: '90-90'}]}}});
  expect(container.requestedPorts.filter((p) => p.containerPort === 80)).toEqual([
    {protocol: 'tcp', containerPort: 80, hostIp: '127.0.0.1', hostPort: 0}, {protocol: 'tcp', containerPort: 80, hostIp: '', hostPort: 8080},
    {protocol: 'tcp', containerPort: 80, hostIp: '', hostPort: 0, hostPortRange: {from: 8000, to: 8005}}, {protocol: 'tcp', containerPort: 80, hostIp: '', hostPort: 0},
    {protocol: 'tcp', containerPort: 80, hostIp: '', hostPort: 90},
  ]);
  expect(placement.ports.map((p) => p.hostPort)).toEqual([8080, 90]);
});

test.each(['9-8', '1-70000', 'x', '70000', '1-2-3', '-1'])('host port %s is refused', async (HostPort) => {
  expect((await failure(create({HostConfig: {PortBindings: {'80/tcp': [{HostPort}]}}}))).message).toBe(`invalid port specification: "${HostPort}"`);
});

test.each(['/var/run/docker.sock', '/run/docker.sock', '/var/run/../run/docker.sock'])('%s is this datacenter\'s own, whatever binds are allowed', async (source) => {
  const {container} = await made({HostConfig: {Binds: [`${source}:/var/run/docker.sock:ro`], Mounts: [{Type: 'bind', Source: source, Target: '/other.sock'}]}});
  expect(container.spec.mounts).toMatchObject([{destination: '/other.sock', dockerSocket: true, readOnly: false}, {destination: '/image-data'}, {destination: '/var/run/docker.sock', dockerSocket: true, readOnly: true}]);
  expect((await failure(create({HostConfig: {Binds: ['/var/run:/var/run']}}))).message).toMatch(/^bind mount of \/var\/run is not allowed on this datacenter: /);
});

test('the log driver local, with its own options', async () => {
  const {container} = await made({HostConfig: {LogConfig: {Type: 'local', Config: {'max-size': '1m', 'max-file': '2', compress: 'false'}}}});
  expect(container.spec.logConfig).toEqual({Type: 'local', Config: {'max-size': '1m', 'max-file': '2', compress: 'false'}});
});

test('an entrypoint of the request drops the image\'s command; an empty one drops the image\'s entrypoint', async () => {
  await world.image('default', 'docker.io/library/ep:latest', {config: {architecture: 'amd64', os: 'linux', rootfs: {type: 'layers', diff_ids: []}, config: {Entrypoint: ['/ep'], Cmd: ['a']}}});
  expect((await made({Image: 'ep', Entrypoint: ['/mine']})).container.spec.config).toMatchObject({Entrypoint: ['/mine']});
  await world.dc.containers.remove(world.caller(), 'web', {force: true, volumes: false, link: false});
  expect((await made({Image: 'ep', Entrypoint: [''], Cmd: ['b']})).container.spec.config).toMatchObject({Entrypoint: null, Cmd: ['b']});
  await world.dc.containers.remove(world.caller(), 'web', {force: true, volumes: false, link: false});
  expect((await failure(create({Image: 'ep', Entrypoint: ['']}))).message).toBe('no command specified');
});

test('mounts: binds, volumes, tmpfs, the image\'s VOLUMEs, parents first', async () => {
  const {container, volumes} = await made({HostConfig: {Binds: ['/srv/data:/deep/er/bind:ro', 'named:/named', '/anonymous'], Tmpfs: {'/tmp': 'size=1m'},
    Mounts: [{Type: 'volume', Target: '/deep', VolumeOptions: {Labels: {a: 'b'}}}]}});
  expect(container.spec.mounts.map((m) => [m.type, m.destination])).toEqual([['volume', '/named'], ['volume', '/anonymous'], ['volume', '/deep'], ['tmpfs', '/tmp'], ['volume', '/image-data'], ['bind', '/deep/er/bind']]);
  expect(volumes.map((v) => v.anonymous)).toEqual([false, true, true, true]);
  expect(container.anonymousVolumeIds).toHaveLength(3);
  expect(container.volumeIds).toHaveLength(4);
  expect(container.spec.mounts.at(-1)).toMatchObject({readOnly: true, source: '/srv/data', createSource: true});
  const again = await world.dc.containers.create(world.caller(), 'two', {Image: 'busybox', HostConfig: {Binds: ['named:/n'], VolumesFrom: ['web:ro']}});
  const params = world.ran.at(-1)!.params as ProvisionParams;
  expect(params.volumes).toEqual([]);
  expect(params.container.volumeIds).toContain(volumes[0]!.id);
  expect(params.container.anonymousVolumeIds).toEqual([]);
  expect(params.container.spec.mounts.every((m) => m.destination === '/n' || m.type === 'tmpfs' || m.readOnly)).toBe(true);
  expect(again.id).toBe(params.container.id);
});

test('hints leave Env and reach placement; sharing a namespace is a hint too', async () => {
  const other = await made({Env: ['constraint:rack==r1', 'A=1'], Labels: {'com.docker.swarm.affinities': '["image==~busybox"]'}});
  expect(other.placement.expressions).toEqual(['constraint:rack==r1', 'affinity:image==~busybox']);
  expect(other.container.spec.config.Env).toEqual(['A=1', 'PATH=/bin']);
  expect(other.container.labels).toMatchObject({'com.docker.swarm.constraints': '["rack==r1"]'});
  await world.dc.containers.create(world.caller(), 'two', {Image: 'busybox', HostConfig: {NetworkMode: 'container:web'}});
  const params = world.ran.at(-1)!.params as ProvisionParams;
  expect(params.placement.expressions).toEqual(['constraint:node==node-1']);
  expect(params.container.spec).toMatchObject({networkMode: `container:${other.container.id}`, config: {Hostname: other.container.id.slice(0, 12)}});
});

test('limits are reserved', async () => {
  expect((await made({HostConfig: {Memory: 2 ** 26, NanoCpus: 8e8, PidsLimit: 5}})).placement.reservation).toEqual({memoryBytes: 2 ** 26, nanoCpus: 1e8, diskBytes: 0, pids: 5});
});

test('networks: by name or id, with aliases and addresses', async () => {
  const {id} = await world.dc.networks.create(world.caller(), {Name: 'shop', IPAM: {Config: [{Subnet: '10.5.0.0/24'}]}});
  const {container} = await made({HostConfig: {NetworkMode: 'shop'}, NetworkingConfig: {EndpointsConfig: {[id]: {Aliases: ['web'], IPAMConfig: {IPv4Address: '10.5.0.9'}}, bridge: null}}});
  expect(container.networks).toMatchObject({shop: {networkId: id, settings: {Aliases: ['web']}}, bridge: {settings: {}}});
});

const refusals: [string, CreateContainerBody, string | RegExp, string?][] = [
  ['no image', {Image: 'nope'}, 'No such image: nope:latest'],
  ['bad reference', {Image: 'UPPER'}, /^invalid reference format/],
  ['link to nobody', {HostConfig: {Links: ['nope:db']}}, 'could not get container for nope: No such container: nope'],
  ['link of three', {HostConfig: {Links: ['a:b:c']}}, 'bad format for links: a:b:c'],
  ['link with the host\'s network', {HostConfig: {NetworkMode: 'host', Links: ['a:b']}}, /^(conflicting options: host type networking can't be used with links|HostConfig.NetworkMode host is not allowed)/],
  ['unknown option', {HostConfig: {Sorcery: true} as never}, /^HostConfig.Sorcery is not supported/],
  ['privileged', {HostConfig: {Privileged: true}}, "HostConfig.Privileged is not allowed on this datacenter: refused by `cetus up --no-privileged` (policy.allowPrivileged of an endpoint's configuration)"],
  ['bind outside', {HostConfig: {Binds: ['/etc:/x']}}, "bind mount of /etc is not allowed on this datacenter: it is below no directory of `cetus up --binds` (policy.allowBinds of an endpoint's configuration)"],
  ['bind escaping', {HostConfig: {Binds: ['/srv/../etc:/x']}}, /^bind mount of .* is not allowed/],
  ['bind volume of a driver option', {HostConfig: {Mounts: [{Type: 'volume', Source: 'vol', Target: '/v', VolumeOptions: {DriverConfig: {Options: {type: 'none', o: 'bind', device: '/etc'}}}}]}}, /^bind mount of \/etc is not allowed/],
  ['relative mount', {HostConfig: {Binds: ['vol:x']}}, /mount path must be absolute/],
  ['twice', {HostConfig: {Binds: ['vol:/x', 'other:/x']}}, 'Duplicate mount point: /x'],
  ['volume name', {HostConfig: {Binds: ['vol$:/x']}}, /includes invalid characters for a local volume name/],
  ['root', {HostConfig: {Binds: ['vol:/']}}, /destination can't be '\/'/],
  ['bind mode', {HostConfig: {Binds: ['vol:/x:wat']}}, 'invalid mode: wat'],
  ['restart policy', {HostConfig: {RestartPolicy: {Name: 'x' as never}}}, /^invalid restart policy: unknown policy 'x'/],
  ['restart with --rm', {HostConfig: {AutoRemove: true, RestartPolicy: {Name: 'always'}}}, "can't create 'AutoRemove' container with restart policy"],
  ['memory', {HostConfig: {Memory: 1}}, 'Minimum memory limit allowed is 6MB'],
  ['swap', {HostConfig: {MemorySwap: 2 ** 30}}, 'You should always set the Memory limit when using Memoryswap limit, see usage'],
  ['log driver', {HostConfig: {LogConfig: {Type: 'gelf'}}}, "logger: no log driver named 'gelf' is registered"],
  ['log opt that names a node\'s socket', {HostConfig: {LogConfig: {Type: 'syslog', Config: {'syslog-address': 'unixgram:///run/x'}}}}, /^log opt syslog-address unixgram:\/\/\/run\/x is not allowed/],
  ['log opt that names a node\'s file', {HostConfig: {LogConfig: {Type: 'syslog', Config: {'syslog-tls-key': '/etc/key'}}}}, /^log opt syslog-tls-key \/etc\/key is not allowed/],
  ['log option', {HostConfig: {LogConfig: {Type: 'json-file', Config: {nope: '1'}}}}, "unknown log opt 'nope' for json-file log driver"],
  ['log option of local', {HostConfig: {LogConfig: {Type: 'local', Config: {labels: 'x'}}}}, "unknown log opt 'labels' for log driver local"],
  ['port', {HostConfig: {PortBindings: {'x/tcp': []}}}, 'invalid port specification: "x"'],
  ['host port', {HostConfig: {PortBindings: {'80/tcp': [{HostPort: '99999'}]}}}, 'invalid port specification: "99999"'],
  ['network', {HostConfig: {NetworkMode: 'nope'}}, 'network nope not found'],
  ['alias on bridge', {NetworkingConfig: {EndpointsConfig: {bridge: {Aliases: ['x']}}}}, /^network-scoped alias is/],
  ['address on bridge', {NetworkingConfig: {EndpointsConfig: {bridge: {IPAMConfig: {IPv4Address: '1.2.3.4'}}}}}, /supported on user defined networks only/],
  ['signal', {StopSignal: 'SIGNOPE'}, 'invalid signal: SIGNOPE'],
  ['working dir', {WorkingDir: 'x'}, "the working directory 'x' is invalid, it needs to be an absolute path"],
  ['environment', {Env: ['=x']}, 'invalid environment variable: =x'],
  ['health', {Healthcheck: {Test: ['CMD', 'x'], Interval: 5}}, 'Interval in Healthcheck cannot be less than 1ms'],
  ['hints', {Labels: {'com.docker.swarm.constraints': '{'}}, /is not a JSON array/],
  ['platform', {}, /was found but its platform \(linux\/amd64\) does not match the specified platform \(linux\/arm64\)/, 'linux/arm64'],
  ['host pid', {HostConfig: {PidMode: 'host'}}, /^HostConfig.PidMode host is not allowed/],
  ['seccomp off', {HostConfig: {SecurityOpt: ['seccomp=unconfined']}}, /is not allowed/],
  ['seccomp off by a profile', {HostConfig: {SecurityOpt: ['seccomp={"defaultAction":"SCMP_ACT_ALLOW"}']}}, /^HostConfig.SecurityOpt seccomp=.* is not allowed/],
  ['all capabilities', {HostConfig: {CapAdd: ['ALL']}}, /^HostConfig.CapAdd ALL is not allowed/],
  ['a capability that reaches out', {HostConfig: {CapAdd: ['kill', 'cap_sys_module']}}, /^HostConfig.CapAdd cap_sys_module is not allowed/],
  ['nothing masked', {HostConfig: {MaskedPaths: []}}, /^HostConfig.MaskedPaths is not allowed/],
  ['less read-only', {HostConfig: {ReadonlyPaths: ['/proc/bus']}}, /^HostConfig.ReadonlyPaths is not allowed/],
  ['mounts that travel back', {HostConfig: {Binds: ['/srv/x:/x:rshared']}}, "propagation rshared is not allowed on this datacenter: it needs `cetus up --binds all` (policy.allowBinds of an endpoint's configuration)"],
];
test.each(refusals.map(([what, ...row]) => [what, row] as const))('refused: %s', async (_, [body, message, platform]) => {
  const err = await failure(create(body, platform));
  if (typeof message === 'string') expect(err.message).toBe(message);
  else expect(err.message).toMatch(message);
  expect(['invalid', 'unsupported', 'forbidden', 'notFound']).toContain(err.kind);
  expect(world.ran.filter((r) => r.workflow === 'container.provision')).toEqual([]);
});

test('named things that are not there are no missing image', async () => {
  for (const HostConfig of [{NetworkMode: 'nope'}, {NetworkMode: 'container:nobody'}, {VolumesFrom: ['nobody']}, {PidMode: 'container:nobody'}])
    expect((await failure(create({HostConfig}))).kind).toBe('invalid');
  expect((await failure(create({Image: 'nope'}))).kind).toBe('notFound');
});

test('a bind tells the node which directory it must not leave', async () => {
  const world = await createWorld({allowBinds: ['/srv/deep/er/', '/srv/deep']});
  try {
    await world.image('default', 'docker.io/library/busybox:latest');
    await world.dc.containers.create(world.caller(), undefined, {Image: 'busybox', HostConfig: {Binds: ['/srv/deep/er/x:/x'], Mounts: [{Type: 'bind', Source: '/srv/deep', Target: '/y'}]}});
    expect((world.ran.at(-1)!.params as ProvisionParams).container.spec.mounts.flatMap((mount) => (mount.type === 'bind' ? [mount.within] : []))).toEqual(['/srv/deep', '/srv/deep']);
  } finally {
    await world.stop();
  }
});

test('host network where it is refused by configuration', async () => {
  const strict = await createWorld({allowHostNetwork: false, allowBinds: 'off'});
  try {
    await strict.image('default', 'docker.io/library/busybox:latest');
    const refuse = (HostConfig: object): Promise<Error> => failure(strict.dc.containers.create(strict.caller(), undefined, {Image: 'busybox', HostConfig}));
    expect((await refuse({NetworkMode: 'host'})).message).toBe("HostConfig.NetworkMode host is not allowed on this datacenter: refused by `cetus up --no-host-network` (policy.allowHostNetwork of an endpoint's configuration)");
    expect((await refuse({Binds: ['/srv/x:/x']})).message).toBe("bind mount of /srv/x is not allowed on this datacenter: refused by `cetus up --binds off` (policy.allowBinds of an endpoint's configuration)");
  } finally {
    await strict.stop();
  }
});
