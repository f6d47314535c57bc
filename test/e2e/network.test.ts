/** Networks with the stock client: reachability, isolation, ports, modes, addresses, names files. */
import dgram from 'node:dgram';
import http from 'node:http';
import net from 'node:net';
import os from 'node:os';
import {decode, encode} from 'dns-packet';
import {listenElsewhere} from '../harness/foreign';
import {freePort, freePorts} from '../harness/ports';
import {datacenterWithBusybox, removeContainersAfterEach} from '../harness/suite';
import {until} from '../harness/wait';

const dc = datacenterWithBusybox();
removeContainersAfterEach(dc);
afterEach(() => dc.ok(['network', 'prune', '-f']));

const SERVER = (text: string, port = 80): string[] => ['sh', '-c', `echo ${text} > /tmp/index.html; exec httpd -f -p ${port} -h /tmp`];
const inspect = async <T = string>(name: string, format: string): Promise<T> => JSON.parse(await dc.ok(['inspect', '-f', `{{json ${format}}}`, name])) as T;
const addressOn = (name: string, network: string): Promise<string> => inspect(name, `(index .NetworkSettings.Networks "${network}").IPAddress`);
/** What a container gets from a URL: the text, or '' where it cannot reach it. (busybox' own -T crashes on this distribution.) */
const fetchFrom = async (name: string, url: string, seconds = 30): Promise<string> => (await dc.docker(['exec', name, 'timeout', String(seconds), 'wget', '-qO-', url])).stdout.trim();
const eventually = (name: string, url: string, text: string): Promise<unknown> => until(`${name} to get ${url}`, async () => (await fetchFrom(name, url)) === text);
/** The machine's own address that is not loopback. */
const hostAddress = (): string => Object.entries(os.networkInterfaces()).flatMap(([name, list]) => (/^(ce-|docker|br-)/.test(name) ? [] : list ?? [])).find((a) => a.family === 'IPv4' && !a.internal)!.address;

describe('user-defined networks', () => {
  test('create, ls, inspect, rm, and what is refused', async () => {
    const id = await dc.ok(['network', 'create', '--subnet', '10.99.7.0/24', '--ip-range', '10.99.7.128/25', '--gateway', '10.99.7.1', '--label', 'tier=back', 'back']);
    expect(id).toMatch(/^[0-9a-f]{64}$/);
    expect((await dc.ok(['network', 'ls', '--format', '{{.Name}} {{.Driver}} {{.Scope}}'])).split('\n')).toEqual(['back bridge local', 'bridge bridge local', 'host host local', 'none null local']);
    expect(await dc.ok(['network', 'ls', '-q', '--no-trunc', '--filter', 'label=tier=back'])).toBe(id);
    const [seen] = JSON.parse(await dc.ok(['network', 'inspect', id.slice(0, 8)])) as [Record<string, unknown>];
    expect(seen).toMatchObject({
      Name: 'back', Id: id, Driver: 'bridge', Internal: false, Labels: {tier: 'back'}, Containers: {},
      IPAM: {Driver: 'default', Config: [{Subnet: '10.99.7.0/24', IPRange: '10.99.7.128/25', Gateway: '10.99.7.1'}]},
    });
    for (const [args, text] of [
      [['network', 'create', 'back'], 'network with name back already exists'],
      [['network', 'create', '--subnet', '10.99.7.128/25', 'other'], 'Pool overlaps with other one on this address space'],
      [['network', 'rm', 'bridge'], 'bridge is a pre-defined network and cannot be removed'],
      [['network', 'create', '-d', 'overlay', 'other'], 'plugin "overlay" not found'],
      [['network', 'inspect', 'nope'], 'network nope not found'],
      [['run', '--network', 'nope', 'busybox'], 'Error response from daemon: network nope not found'],
      [['run', '--network', 'container:nobody', 'busybox'], 'Error response from daemon: No such container: nobody'],
    ] as const) expect((await dc.docker([...args])).stderr).toContain(text);
    await dc.ok(['run', '-d', '--name', 'user', '--network', 'back', 'busybox', 'sleep', '1000']);
    expect(await addressOn('user', 'back')).toBe('10.99.7.128');
    expect((await dc.docker(['network', 'rm', 'back'])).stderr).toMatch(/network back has active endpoints/);
    await dc.ok(['rm', '-f', 'user']);
    expect(await dc.ok(['network', 'rm', 'back'])).toBe('back');
    expect((await dc.docker(['network', 'inspect', 'back'])).stderr).toContain('network back not found');
  });

  test('containers of one network reach each other, those of two do not, until connected', async () => {
    await dc.ok(['network', 'create', 'one']);
    await dc.ok(['network', 'create', 'two']);
    await dc.ok(['run', '-d', '--name', 'server', '--network', 'one', 'busybox', ...SERVER('hello')]);
    await dc.ok(['run', '-d', '--name', 'near', '--network', 'one', 'busybox', 'sleep', '1000']);
    await dc.ok(['run', '-d', '--name', 'far', '--network', 'two', 'busybox', 'sleep', '1000']);
    await dc.ok(['run', '-d', '--name', 'plain', 'busybox', 'sleep', '1000']);
    const url = `http://${await addressOn('server', 'one')}/`;
    await eventually('near', url, 'hello');
    expect(await Promise.all([fetchFrom('far', url, 1), fetchFrom('plain', url, 1)])).toEqual(['', '']);

    await dc.ok(['network', 'connect', '--alias', 'guest', 'one', 'far']);
    await eventually('far', url, 'hello');
    expect(await inspect<object>('far', '.NetworkSettings.Networks')).toMatchObject({one: {Aliases: ['guest']}, two: {}});
    expect(Object.values(JSON.parse(await dc.ok(['network', 'inspect', '-f', '{{json .Containers}}', 'one'])) as Record<string, {Name: string}>).map((c) => c.Name).sort()).toEqual(['far', 'near', 'server']);
    expect(await dc.ok(['exec', 'far', 'ip', '-4', '-o', 'address'])).toMatch(new RegExp(`eth1 +inet ${await addressOn('far', 'one')}/`));
    expect((await dc.docker(['network', 'connect', 'one', 'far'])).stderr).toMatch(/endpoint with name far already exists in network one/);

    await dc.ok(['network', 'disconnect', 'one', 'far']);
    expect(await fetchFrom('far', url, 1)).toBe('');
    expect(await dc.ok(['exec', 'far', 'cat', '/etc/hosts'])).not.toContain('guest');
    expect(Object.keys(await inspect<object>('far', '.NetworkSettings.Networks'))).toEqual(['two']);
    expect((await dc.docker(['network', 'disconnect', 'one', 'far'])).stderr).toMatch(/is not connected to (the )?network/);
  });

  test('a fixed address is kept for its container while it runs, and given back', async () => {
    await dc.ok(['network', 'create', '--subnet', '10.99.8.0/29', 'tiny']);
    await dc.ok(['run', '-d', '--name', 'fixed', '--network', 'tiny', '--ip', '10.99.8.5', 'busybox', 'sleep', '1000']);
    expect(await dc.ok(['exec', 'fixed', 'ip', '-4', '-o', 'address'])).toContain(' 10.99.8.5/29 ');
    expect((await dc.docker(['run', '--rm', '--network', 'tiny', '--ip', '10.99.8.5', 'busybox', 'true'])).stderr).toContain('Address already in use');
    expect((await dc.docker(['create', '--network', 'tiny', '--ip', '10.1.2.3', 'busybox'])).stderr).toContain('no configured subnet or ip-range contain the IP address 10.1.2.3');
    expect((await dc.docker(['create', '--ip', '10.1.2.3', 'busybox'])).stderr).toContain('user specified IP address is supported on user defined networks only');
    // .1 is the gateway; .2 .3 .4 .6 are left.
    for (const n of [2, 3, 4, 6]) await dc.ok(['run', '-d', '--name', `n${n}`, '--network', 'tiny', 'busybox', 'sleep', '1000']);
    const full = await dc.docker(['run', '-d', '--name', 'late', '--network', 'tiny', 'busybox', 'sleep', '1000']);
    expect(full.stderr).toContain("no available IPv4 addresses on this network's address pools: tiny");
    await dc.ok(['stop', '-t', '0', 'n3']);
    expect(await addressOn('n3', 'tiny')).toBe('');
    await dc.ok(['start', 'late']);
    expect(await addressOn('late', 'tiny')).toBe('10.99.8.3');
    await dc.ok(['stop', '-t', '0', 'fixed']);
    await dc.ok(['start', 'fixed']);
    expect(await addressOn('fixed', 'tiny')).toBe('10.99.8.5');
  });

  test('no way leads from one network into another: not by address, gateway, route or a port that is published elsewhere', async () => {
    const port = await freePort();
    for (const network of ['one', 'two']) await dc.ok(['network', 'create', network]);
    await dc.ok(['run', '-d', '--name', 'server', '--network', 'one', '-p', `127.0.0.1:${port}:80`, 'busybox', ...SERVER('hello')]);
    await dc.ok(['run', '-d', '--name', 'near', '--network', 'one', 'busybox', 'sleep', '1000']);
    await dc.ok(['run', '-d', '--name', 'far', '--network', 'two', '--cap-add', 'NET_ADMIN', 'busybox', 'sleep', '1000']);
    const at = await addressOn('server', 'one');
    await eventually('near', `http://${at}/`, 'hello');
    const gateways = await Promise.all([['server', 'one'], ['far', 'two']].map(([name, network]) => inspect<string>(name!, `(index .NetworkSettings.Networks "${network}").Gateway`)));
    // In a fleet the server's own word is asked for: where its network is not on the node of `far`, what has its address leaves the machine, and whoever stands there may take every connection.
    const reach = (host: string, p: number): string => (dc.isFleet ? `timeout 2 wget -qO- http://${host}:${p}/ 2>/dev/null | grep -q hello` : `timeout 1 nc -w 1 ${host} ${p} </dev/null >/dev/null 2>&1`);
    const scan = async (): Promise<string> => dc.ok(['exec', 'far', 'sh', '-c', [
      `ping -c 1 -W 1 ${at} >/dev/null && echo ping &`,
      ...[at, ...gateways].flatMap((host) => [80, port].map((p) => `${reach(host, p)} && echo ${host}:${p} &`)), 'wait',
    ].join('\n')]);
    expect(await scan()).toBe('');
    // As if the other network's hosts were on this one's wire, or behind its own gateway.
    await dc.ok(['exec', 'far', 'ip', 'route', 'add', `${at}/32`, 'dev', 'eth0']);
    expect(await scan()).toBe('');
    await dc.ok(['exec', 'far', 'ip', 'route', 'replace', `${at}/32`, 'via', gateways[1]!]);
    expect(await scan()).toBe('');
    expect(await get('127.0.0.1', port)).toBe('hello\n');
  });

  test('bridges by name, ranges, the way out by priority while it runs, and addresses only where the subnet was asked for', async () => {
    const bridge = `br-${process.pid}`;
    await dc.ok(['network', 'create', '-o', `com.docker.network.bridge.name=${bridge}`, '-o', 'com.docker.network.driver.mtu=1400', '--subnet', '10.99.6.0/24', '--ip-range', '10.99.6.128/25', 'named']);
    await dc.ok(['network', 'create', 'early']);
    await dc.ok(['network', 'create', 'pool']);
    await dc.ok(['run', '-d', '--name', 'box', '--network', 'named', 'busybox', 'sleep', '1000']);
    expect(await dc.onNodeOf('box', 'ip', '-4', 'addr', 'show', 'dev', bridge)).toContain('inet 10.99.6.128/24');
    expect(await addressOn('box', 'named')).toBe('10.99.6.129');
    expect(await dc.ok(['exec', 'box', 'cat', '/sys/class/net/eth0/mtu'])).toBe('1400');
    const wayOut = async (): Promise<string> => /default via \S+ dev (\S+)/.exec(await dc.ok(['exec', 'box', 'ip', 'route']))?.[1] ?? '';
    expect(await wayOut()).toBe('eth0');
    // The first name, unless another has a higher priority.
    await dc.ok(['network', 'connect', 'early', 'box']);
    expect(await wayOut()).toBe('eth1');
    await dc.ok(['network', 'connect', '--gw-priority', '1', 'pool', 'box']);
    expect(await wayOut()).toBe('eth2');
    await dc.ok(['network', 'disconnect', 'early', 'box']);
    expect(await wayOut()).toBe('eth2');
    await dc.ok(['network', 'disconnect', 'pool', 'box']);
    expect(await wayOut()).toBe('eth0');
    for (const [args, text] of [
      [['network', 'create', '-o', `com.docker.network.bridge.name=${bridge}`, 'other'], 'networks have same bridge name'],
      [['network', 'create', '-o', 'com.docker.network.driver.mtu=big', 'other'], 'failed to parse com.docker.network.driver.mtu value: big'],
      [['network', 'create', '--subnet', '10.99.5.7/24', 'other'], 'invalid subnet 10.99.5.7/24: it should be 10.99.5.0/24'],
      [['network', 'create', '--ipv6', '--subnet', 'fd00:99::/64', 'other'], 'EnableIPv6 is not supported'],
      [['network', 'connect', '--ip', '172.30.0.9', 'pool', 'box'], 'user specified IP address is supported only when connecting to networks with user configured subnets'],
      [['network', 'connect', '--ip', '10.99.6.255', 'named', 'box'], 'endpoint with name box already exists in network named'],
      [['run', '--rm', '--network', 'named', '--ip', '10.99.6.255', 'busybox'], 'Address already in use'],
      [['network', 'connect', 'host', 'box'], 'container cannot be disconnected from host network or connected to host network'],
      [['network', 'disconnect', '-f', 'named', 'nobody'], 'endpoint nobody not found'],
    ] as const) expect((await dc.docker([...args])).stderr).toContain(text);
  });

  test('an internal network has no way out', async () => {
    await dc.ok(['network', 'create', '--internal', 'closed']);
    await dc.ok(['run', '-d', '--name', 'inside', '--network', 'closed', 'busybox', 'sleep', '1000']);
    await withServer(hostAddress(), async (url) => expect(await fetchFrom('inside', url, 1)).toBe(''));
    expect(await dc.ok(['exec', 'inside', 'ip', 'route'])).not.toContain('default');
  });
});

describe('outwards and inwards', () => {
  test('a container reaches a server at the host\'s address, coming from the host', async () => {
    await dc.ok(['run', '-d', '--name', 'client', 'busybox', 'sleep', '1000']);
    await withServer(hostAddress(), async (url, peers) => {
      expect(await fetchFrom('client', url)).toBe('from the host');
      expect(peers).toHaveLength(1);
    });
  });

  test('a published TCP port answers at every address of the host, also from a container, and no longer after stop', async () => {
    const port = await freePort();
    await dc.ok(['run', '-d', '--name', 'web', '-p', `${port}:80`, 'busybox', ...SERVER('published')]);
    for (const host of ['127.0.0.1', 'localhost', hostAddress()]) await until(`an answer at ${host}`, async () => (await get(host, port)) === 'published\n');
    await dc.ok(['network', 'create', 'else']);
    await dc.ok(['run', '-d', '--name', 'client', '--network', 'else', 'busybox', 'sleep', '1000']);
    expect(await fetchFrom('client', `http://${hostAddress()}:${port}/`)).toBe('published');
    await dc.ok(['stop', '-t', '0', 'web']);
    expect(await get('127.0.0.1', port)).toBe('ECONNREFUSED');
    expect(await dc.ok(['port', 'web'])).toBe('');
    await dc.ok(['start', 'web']);
    await until('it to be back', async () => (await get('127.0.0.1', port)) === 'published\n');
  });

  test('UDP', async () => {
    const port = await freePort();
    // busybox has no UDP server: the machine's own node is one.
    const server = "const s = require('dgram').createSocket('udp4').on('message', (m, r) => s.send(m, r.port, r.address)).bind(53)";
    await dc.ok(['run', '-d', '--name', 'echo', '-v', '/:/host:ro', '-p', `${port}:53/udp`, 'busybox', 'chroot', '/host', process.execPath, '-e', server]);
    expect(await dc.ok(['port', 'echo'])).toBe(`53/udp -> 0.0.0.0:${port}`);
    for (const host of ['127.0.0.1', hostAddress()]) await until(`an echo from ${host}`, () => echoed(host, port));
  });

  test('one address only, any free port, a range, all exposed', async () => {
    await dc.ok(['run', '-d', '--name', 'local', '-p', '127.0.0.1::80', 'busybox', ...SERVER('local')]);
    const [, port] = /^80\/tcp -> 127\.0\.0\.1:(\d+)$/.exec(await dc.ok(['port', 'local']))!;
    await until('an answer', async () => (await get('127.0.0.1', Number(port))) === 'local\n');
    expect(await get(hostAddress(), Number(port))).toBe('ECONNREFUSED');

    const first = await freePorts(3);
    const range = `${first}-${first + 2}:80`;
    const foreign = await listenElsewhere(first + 1, dc.running.nodes);
    await dc.ok(['run', '-d', '--name', 'r0', '-p', range, 'busybox', ...SERVER('r0')]);
    await dc.ok(['run', '-d', '--name', 'r1', '-p', range, 'busybox', ...SERVER('r1')]);
    expect(await dc.ok(['port', 'r0'])).toBe(`80/tcp -> 0.0.0.0:${first}`);
    // The one in the middle is held by a foreign program.
    expect(await dc.ok(['port', 'r1'])).toBe(`80/tcp -> 0.0.0.0:${first + 2}`);
    await foreign.close();
    await dc.ok(['run', '-d', '--name', 'r2', '-p', range, 'busybox', ...SERVER('r2')]);
    expect(await dc.ok(['port', 'r2'])).toBe(`80/tcp -> 0.0.0.0:${first + 1}`);
    expect((await dc.docker(['run', '--rm', '-p', range, 'busybox', 'true'])).stderr).toContain('all ports are allocated');
    await until('an answer', async () => (await get('127.0.0.1', first + 1)) === 'r2\n');

    const wide = await freePorts(2);
    await dc.ok(['run', '-d', '--name', 'all', '-P', '--expose', '7000', '--expose', '7001/udp', '-p', `${wide}-${wide + 1}:90-91`, 'busybox', 'sleep', '1000']);
    expect((await dc.ok(['port', 'all'])).split('\n').sort()).toEqual([
      expect.stringMatching(/^7000\/tcp -> 0\.0\.0\.0:\d+$/), expect.stringMatching(/^7001\/udp -> 0\.0\.0\.0:\d+$/), `90/tcp -> 0.0.0.0:${wide}`, `91/tcp -> 0.0.0.0:${wide + 1}`,
    ]);
  });

  test('a taken port is refused at the start in the Engine\'s words; the container stays, and nothing is held', async () => {
    const port = await freePort();
    const foreign = await listenElsewhere(port, dc.running.nodes);
    const other = await freePort();
    // The free one before the taken one: it must be let go of again.
    const refused = await dc.docker(['run', '-d', '--name', 'late', '-p', `${other}:81`, '-p', `${port}:80`, 'busybox', ...SERVER('late')]);
    expect(refused.status).toBe(125);
    expect(refused.stderr).toMatch(new RegExp(`driver failed programming external connectivity on endpoint late \\([0-9a-f]{64}\\): failed to bind port 0\\.0\\.0\\.0:${port}/tcp: listen tcp4 0\\.0\\.0\\.0:${port}: bind: address already in use`));
    expect(await inspect('late', '.State')).toMatchObject({Status: 'created', ExitCode: 128});
    expect(await dc.ok(['port', 'late'])).toBe('');
    await foreign.close();

    await dc.ok(['run', '-d', '--name', 'first', '-p', `${port}:80`, '-p', `${other}:80`, 'busybox', ...SERVER('first')]);
    const second = await dc.docker(['start', 'late']);
    expect(second.status).toBe(1);
    expect(second.stderr).toMatch(new RegExp(`on endpoint late \\([0-9a-f]{64}\\): Bind for 0\\.0\\.0\\.0:(${other}|${port}) failed: port is already allocated`));
    await dc.ok(['rm', '-f', 'first']);
    await dc.ok(['start', 'late']);
    await until('an answer', async () => (await get('127.0.0.1', port)) === 'late\n');
  });
});

describe('modes', () => {
  test('none: loopback only', async () => {
    expect((await dc.ok(['run', '--rm', '--network', 'none', 'busybox', 'ip', '-o', 'link'])).split('\n').map((l) => l.split(': ')[1])).toEqual(['lo']);
  });

  test('host: the machine\'s own interfaces, and its name', async () => {
    const printed = await dc.ok(['run', '--rm', '--network', 'host', 'busybox', 'sh', '-c', 'hostname; ip -4 -o address']);
    const machines = dc.running.nodes ?? [{name: os.hostname(), address: hostAddress()}];
    expect(machines.filter(({name, address}) => printed.startsWith(`${name}\n`) && printed.includes(` ${address}/`))).toHaveLength(1);
  });

  test('container:X: one network for two', async () => {
    await dc.ok(['run', '-d', '--name', 'base', '--hostname', 'based', 'busybox', ...SERVER('shared')]);
    expect(await dc.ok(['run', '--rm', '--network', 'container:base', 'busybox', 'sh', '-c', 'until wget -qO- http://127.0.0.1/; do :; done; hostname; cat /etc/hosts'])).toMatch(/^shared\nbased\n[^]*\tbased$/);
    const conflict = await dc.docker(['run', '--rm', '--network', 'container:base', '-p', '1:1', 'busybox', 'true']);
    expect(conflict.stderr).toMatch(/conflicting options: port publishing and the container type network mode/);
    await dc.ok(['stop', '-t', '0', 'base']);
    expect((await dc.docker(['run', '--rm', '--network', 'container:base', 'busybox', 'true'])).stderr).toMatch(/cannot join network( namespace)? of a non running container/);
  });
});

describe('names', () => {
  test('hostname, hosts and resolv.conf as asked', async () => {
    await dc.ok(['network', 'create', '--subnet', '10.99.9.0/24', 'named']);
    const printed = await dc.ok(['run', '--rm', '--network', 'named', '--ip', '10.99.9.7', '--hostname', 'box', '--domainname', 'lab', '--add-host', 'db:10.1.2.3', '--add-host', 'up=::9',
      '--add-host', 'host.docker.internal:host-gateway', '--dns', '192.0.2.53', '--dns-search', 'example.org', '--dns-option', 'ndots:2', 'busybox', 'sh', '-c', 'hostname; cat /etc/hosts; echo --; cat /etc/resolv.conf']);
    expect(printed.split('\n')[0]).toBe('box');
    for (const line of ['127.0.0.1\tlocalhost', '10.1.2.3\tdb', '::9\tup', '10.99.9.7\tbox.lab box']) expect(printed.split('\n')).toContain(line);
    expect(printed).toMatch(/^\d+\.\d+\.\d+\.\d+\thost\.docker\.internal$/m);
    expect(printed.split('--\n')[1]!.split('\n')).toEqual(['nameserver 10.99.9.1', 'search example.org', 'options ndots:2']);
    expect(await dc.ok(['run', '--rm', '--dns', '192.0.2.53', '--dns-search', 'example.org', 'busybox', 'cat', '/etc/resolv.conf'])).toBe('nameserver 192.0.2.53\nsearch example.org');
  });

  test('without a word: the container\'s id, and servers that the host uses too', async () => {
    const id = await dc.ok(['run', '-d', 'busybox', 'sleep', '1000']);
    const [hostname, hosts, resolv] = (await dc.ok(['exec', id, 'sh', '-c', 'hostname; echo --; cat /etc/hosts; echo --; cat /etc/resolv.conf'])).split('--\n');
    expect(hostname!.trim()).toBe(id.slice(0, 12));
    expect(hosts).toContain(`${await addressOn(id, 'bridge')}\t${id.slice(0, 12)}\n`);
    expect(resolv).toMatch(/^nameserver \d/m);
    expect(resolv).not.toMatch(/nameserver 127\./);
  });
});

async function withServer(address: string, use: (url: string, peers: string[]) => Promise<void>): Promise<void> {
  const peers: string[] = [];
  const server = http.createServer((req, res) => {
    peers.push(req.socket.remoteAddress ?? '');
    res.end('from the host');
  });
  await new Promise<void>((resolve) => server.listen(0, address, resolve));
  try {
    await use(`http://${address}:${(server.address() as net.AddressInfo).port}/`, peers);
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}

/** The body, or the code of the error. */
function get(host: string, port: number): Promise<string> {
  return new Promise((resolve) => {
    http.get({host, port, agent: false, timeout: 3_000, family: 4}, (res) => {
      let text = '';
      res.setEncoding('utf8').on('data', (chunk: string) => (text += chunk)).on('end', () => resolve(text));
    }).on('timeout', function (this: http.ClientRequest) { this.destroy(new Error('timeout')); }).on('error', (err: NodeJS.ErrnoException) => resolve(err.code ?? err.message));
  });
}

function echoed(host: string, port: number): Promise<boolean> {
  const socket = dgram.createSocket('udp4');
  return new Promise<boolean>((resolve) => {
    const timer = setTimeout(() => resolve(false), 1_000);
    socket.once('message', (message) => {
      clearTimeout(timer);
      resolve(message.toString() === 'ping');
    });
    socket.on('error', () => resolve(false));
    socket.send('ping', port, host);
  }).finally(() => socket.close());
}

describe('names', () => {
  /** Addresses that the name has for the container, sorted; [] where there is no answer. */
  const lookup = async (name: string, wanted: string): Promise<string[]> =>
    [...(await dc.docker(['exec', name, 'nslookup', '-type=a', wanted])).stdout.split('\n\n').slice(1).join('\n').matchAll(/^Address: (\S+)$/gm)].map((m) => m[1]).sort();

  test('names, aliases and short ids find containers on networks of one\'s own, and nowhere else', async () => {
    for (const network of ['front', 'back']) await dc.ok(['network', 'create', network]);
    const web = await dc.ok(['run', '-d', '--name', 'web', '-h', 'webhost', '--network', 'front', '--network-alias', 'www', '--network-alias', 'pool', 'busybox', ...SERVER('web')]);
    await dc.ok(['run', '-d', '--name', 'db', '--network', 'front', '--network-alias', 'pool', 'busybox', 'sleep', '1000']);
    await dc.ok(['run', '-d', '--name', 'apart', '--network', 'back', 'busybox', 'sleep', '1000']);
    await dc.ok(['run', '-d', '--name', 'plain', 'busybox', 'sleep', '1000']);
    const [atWeb, atDb] = [await addressOn('web', 'front'), await addressOn('db', 'front')];
    for (const name of ['web', 'WEB', 'www', 'webhost', web.slice(0, 12), 'web.front']) expect({name, at: await lookup('db', name)}).toEqual({name, at: [atWeb]});
    expect(await lookup('db', 'pool')).toEqual([atWeb, atDb].sort());
    expect(await lookup('web', 'db')).toEqual([atDb]);
    await eventually('db', 'http://www/', 'web');
    expect((await dc.docker(['exec', 'db', 'nslookup', atWeb])).stdout).toMatch(/name = web\.front/);
    for (const [from, name] of [['apart', 'web'], ['db', 'apart'], ['plain', 'web'], ['db', 'plain']] as const) expect(await lookup(from, name)).toEqual([]);
    expect(await inspect<string[]>('web', '(index .NetworkSettings.Networks "front").DNSNames')).toEqual(['web', 'www', 'pool', web.slice(0, 12), 'webhost']);

    // A network more while it runs: its names come with it, and go with it.
    await dc.ok(['network', 'connect', '--alias', 'guest', 'front', 'plain']);
    expect(await lookup('plain', 'web')).toEqual([atWeb]);
    expect(await lookup('db', 'guest')).toEqual([await addressOn('plain', 'front')]);
    await dc.ok(['network', 'disconnect', 'front', 'plain']);
    expect(await lookup('plain', 'web')).toEqual([]);
    expect(await lookup('db', 'guest')).toEqual([]);

    await dc.ok(['rename', 'web', 'site']);
    expect(await lookup('db', 'site')).toEqual([atWeb]);
    expect(await lookup('db', 'web')).toEqual([]);
    await dc.ok(['stop', '-t', '0', 'site']);
    expect(await lookup('db', 'www')).toEqual([]);
    expect(await lookup('db', 'pool')).toEqual([atDb]);
  });

  test('outlive the agent, and whoever publishes port 53 does not answer for us', async () => {
    await dc.ok(['network', 'create', 'front']);
    await dc.ok(['run', '-d', '--name', 'web', '--network', 'front', 'busybox', 'sleep', '1000']);
    await dc.ok(['run', '-d', '--name', 'db', '--network', 'front', '-p', '53:5353/udp', '-p', '53:5353/tcp', 'busybox', 'sleep', '1000']);
    const at = [await addressOn('web', 'front')];
    expect(await lookup('db', 'web')).toEqual(at);
    await dc.kill(await dc.part('agent', 'db'));
    await until('the next agent to answer', async () => (await lookup('db', 'web')).join() === at.join());
  });

  test('foreign names go to the container\'s own servers, or the node\'s; from an internal network to nobody', async () => {
    const server = dgram.createSocket('udp4');
    await new Promise<void>((resolve) => server.bind({address: '127.0.0.53', port: 53}, resolve));
    const asked: string[] = [];
    server.on('message', (message, from) => {
      const query = decode(message);
      asked.push(query.questions![0].name);
      server.send(encode({type: 'response', id: query.id, questions: query.questions, answers: [{type: 'A', name: query.questions![0].name, ttl: 5, data: '192.0.2.99'}]}), from.port, from.address);
    });
    try {
      await dc.ok(['network', 'create', 'front']);
      await dc.ok(['network', 'create', '--internal', 'inside']);
      await dc.ok(['run', '-d', '--name', 'web', '--network', 'front', '--dns', '127.0.0.53', '--dns-search', 'corp.test', 'busybox', 'sleep', '1000']);
      await dc.ok(['run', '-d', '--name', 'kept', '--network', 'inside', '--dns', '127.0.0.53', 'busybox', 'sleep', '1000']);
      expect(await dc.ok(['exec', 'web', 'cat', '/etc/resolv.conf'])).toMatch(/^nameserver \d+\.\d+\.\d+\.1\nsearch corp\.test\noptions .*ndots:0$/);
      expect(await lookup('web', 'far.example')).toEqual(['192.0.2.99']);
      expect(await lookup('kept', 'hidden.example')).toEqual([]);
      expect(await lookup('kept', 'kept')).toEqual([await addressOn('kept', 'inside')]);
      // Over UDP a question may be put again.
      expect([...new Set(asked)]).toEqual(['far.example']);
    } finally {
      await new Promise<void>((resolve) => server.close(() => resolve()));
    }
  });
});
