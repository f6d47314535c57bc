/** The node's network for real: needs root, iproute2, nftables and iptables; touches nothing outside namespaces of its own. */
import {spawn} from 'node:child_process';
import {once} from 'node:events';
import {aNetwork, anAttachment, aSandbox, type Driver, HOST, INTERNET, sh, World} from './network/world';

async function until(what: string, condition: () => boolean): Promise<void> {
  const end = Date.now() + 40_000;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`never: ${what}`);
    await new Promise(next => setTimeout(next, 20));
  }
}

describe('the network of a node', () => {
  let world: World;
  let driver: Driver;

  beforeEach(async () => {
    world = new World();
    driver = await world.networking();
    await driver.open();
  });
  afterEach(() => world.destroy());

  const net = (n: number, part = {}) => aNetwork(world.tag, n, part);

  test('containers on one bridge talk, across bridges and into internal networks they do not, and outwards they are masqueraded', async () => {
    const [one, two, inner] = [net(1), net(2), net(3, {internal: true})];
    const a = (await driver.createSandbox(aSandbox('a', [one], 10))).netnsPath;
    const b = (await driver.createSandbox(aSandbox('b', [one], 11))).netnsPath;
    const c = (await driver.createSandbox(aSandbox('c', [two], 10))).netnsPath;
    const d = (await driver.createSandbox(aSandbox('d', [inner], 10))).netnsPath;
    const e = (await driver.createSandbox(aSandbox('e', [inner], 11))).netnsPath;
    await world.serve(b, 'tcp', 80);
    await world.serve(c, 'tcp', 80);
    await world.serve(d, 'tcp', 80);
    await world.serve(world.path(world.internet), 'tcp', 99);
    expect(world.ask(a, 'tcp', '172.31.0.11', 80)).toBe('172.31.0.10: hello');
    expect(world.askInVain(a, 'tcp', '172.32.0.10', 80)).toBe('silence');
    expect(world.ask(a, 'tcp', INTERNET, 99)).toBe(`${HOST}: hello`);
    expect(world.askInVain(a, 'tcp', '172.33.0.10', 80)).toBe('silence');
    expect(world.ask(e, 'tcp', '172.33.0.10', 80)).toBe('172.33.0.11: hello');
    expect(world.ask(e, 'tcp', INTERNET, 99)).toBe('ENETUNREACH');
    // Nor with a route of its own making, to somebody who knows the way back.
    sh('ip', '-n', world.internet, 'route', 'add', '172.33.0.0/16', 'via', HOST);
    sh('ip', '-n', e.split('/').pop()!, 'route', 'add', 'default', 'via', '172.33.0.1');
    expect(world.askInVain(e, 'tcp', INTERNET, 99)).toBe('silence');
    // From outside, an address that is not published cannot be reached even by who knows the way.
    sh('ip', '-n', world.internet, 'route', 'add', '172.31.0.0/16', 'via', HOST);
    expect(world.askInVain(world.path(world.internet), 'tcp', '172.31.0.11', 80)).toBe('silence');
    expect(sh('nsenter', `--net=${a}`, 'cat', '/proc/sys/net/ipv6/conf/eth0/disable_ipv6').trim()).toBe('1');
    // The uplink carries 1400 bytes, so the containers' interfaces must not promise more.
    expect(sh('nsenter', `--net=${a}`, 'ip', '-j', 'link', 'show', 'dev', 'eth0')).toContain('"mtu":1400');
  });

  test('published TCP and UDP ports: from outside, from the host, at 127.0.0.1, from the container itself and its neighbours', async () => {
    const [one, two] = [net(1), net(2)];
    const a = (await driver.createSandbox(aSandbox('a', [one], 10, [{}, {protocol: 'udp', containerPort: 53, hostPort: 5353}, {hostIp: '127.0.0.1', hostPort: 9090}]))).netnsPath;
    const b = (await driver.createSandbox(aSandbox('b', [one], 11))).netnsPath;
    const c = (await driver.createSandbox(aSandbox('c', [two], 10))).netnsPath;
    await world.serve(a, 'tcp', 80);
    await world.serve(a, 'udp', 53);
    const [outside, host] = [world.path(world.internet), world.path(world.host)];
    expect(world.ask(outside, 'tcp', HOST, 8080)).toBe(`${INTERNET}: hello`);
    expect(world.ask(outside, 'udp', HOST, 5353)).toBe(`${INTERNET}: hello`);
    expect(world.ask(host, 'tcp', HOST, 8080)).toContain('hello');
    expect(world.ask(host, 'tcp', '127.0.0.1', 8080)).toBe('172.31.0.1: hello');
    expect(world.ask(host, 'udp', '127.0.0.1', 5353)).toBe('172.31.0.1: hello');
    expect(world.ask(host, 'tcp', '127.0.0.1', 9090)).toBe('172.31.0.1: hello');
    expect(world.ask(outside, 'tcp', HOST, 9090)).toBe('refused');
    for (const from of [a, b, c]) expect(world.ask(from, 'tcp', HOST, 8080)).toContain('hello');
    expect(world.ask(b, 'tcp', '172.31.0.1', 8080)).toContain('hello');
    expect(await driver.publishedPorts()).toHaveLength(3);
    await driver.removeSandbox('a');
    expect(world.ask(outside, 'tcp', HOST, 8080)).toBe('refused');
    expect(world.ask(host, 'tcp', '127.0.0.1', 9090)).toBe('refused');
  });

  test('a UDP client that never pauses finds the port again when the container comes back at another address', async () => {
    const udp = [{protocol: 'udp' as const, containerPort: 53, hostPort: 5353}];
    const client = world.repeat(world.path(world.internet), HOST, 5353);
    await world.serve((await driver.createSandbox(aSandbox('a', [net(1)], 10, udp))).netnsPath, 'udp', 53);
    await until('the first answers', () => client.heard > 2);
    await driver.removeSandbox('a');
    await world.serve((await driver.createSandbox(aSandbox('a', [net(1)], 12, udp))).netnsPath, 'udp', 53);
    const before = client.heard;
    await until('answers again', () => client.heard > before + 2);
  });

  test('a container cannot reach the host\'s loopback through its gateway', async () => {
    const a = (await driver.createSandbox(aSandbox('a', [net(1)], 10))).netnsPath;
    await world.serve(world.path(world.host), 'tcp', 7777, '127.0.0.1');
    sh('nsenter', `--net=${a}`, 'sh', '-c', 'ip addr del 127.0.0.1/8 dev lo; echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet; ip route del table local 127.0.0.0/8 dev lo 2>/dev/null; ip route add 127.0.0.1 via 172.31.0.1 dev eth0');
    expect(world.askInVain(a, 'tcp', '127.0.0.1', 7777)).not.toContain('hello');
  });

  test('a port that is taken is refused in the Engine\'s words, and nothing stays behind', async () => {
    const foreign = await world.serve(world.path(world.host), 'tcp', 8081);
    await driver.createSandbox(aSandbox('a', [net(1)], 10, [{hostPort: 8080}]));
    await expect(driver.createSandbox(aSandbox('b', [net(1)], 11, [{hostPort: 8082}, {hostPort: 8081}]))).rejects.toMatchObject({
      kind: 'conflict', message: 'driver failed programming external connectivity on endpoint b (e11): failed to bind port 0.0.0.0:8081/tcp: listen tcp4 0.0.0.0:8081: bind: address already in use',
    });
    await expect(driver.createSandbox(aSandbox('b', [net(1)], 11, [{hostIp: '127.0.0.1', hostPort: 8080}]))).rejects.toMatchObject({
      kind: 'conflict', message: 'driver failed programming external connectivity on endpoint b (e11): Bind for 127.0.0.1:8080 failed: port is already allocated',
    });
    await expect(driver.createSandbox(aSandbox('b', [net(1)], 11, [{hostIp: '203.0.113.7'}]))).rejects.toMatchObject({kind: 'conflict', message: /cannot assign requested address/});
    expect(await driver.sandboxes()).toEqual(['a']);
    await world.stop(foreign);
    await driver.createSandbox(aSandbox('b', [net(1)], 11, [{hostPort: 8082}, {hostPort: 8081}]));
    // What we hold, others cannot take.
    await expect(world.serve(world.path(world.host), 'tcp', 8081).catch(() => 'refused')).resolves.toBe('refused');
  });

  test.each(['iptables-nft', 'iptables-legacy'])('a FORWARD policy of DROP (%s) does not cut containers off, and our rules go with the networks', async iptables => {
    world.inHost(iptables, '-P', 'FORWARD', 'DROP');
    const a = (await driver.createSandbox(aSandbox('a', [net(1)], 10, [{}]))).netnsPath;
    const b = (await driver.createSandbox(aSandbox('b', [net(2)], 10))).netnsPath;
    await world.serve(a, 'tcp', 80);
    await world.serve(b, 'tcp', 80);
    await world.serve(world.path(world.internet), 'tcp', 99);
    expect(world.ask(a, 'tcp', INTERNET, 99)).toBe(`${HOST}: hello`);
    expect(world.ask(world.path(world.internet), 'tcp', HOST, 8080)).toBe(`${INTERNET}: hello`);
    expect(world.askInVain(a, 'tcp', '172.32.0.10', 80)).toBe('silence');
    await Promise.all(['a', 'b'].map(id => driver.removeSandbox(id)));
    await Promise.all(['net1', 'net2'].map(id => driver.removeNetwork(id)));
    expect(world.inHost(iptables, '-S', 'FORWARD').trim()).toBe('-P FORWARD DROP');
  });

  test.each(['iptables-nft', 'iptables-legacy'])('names are answered at the gateway, also under an INPUT policy of DROP (%s), after a flush and by the next agent', async iptables => {
    await driver.close();
    driver = await world.networking({checkMs: 50});
    await driver.open();
    world.inHost(iptables, '-P', 'INPUT', 'DROP');
    const [one, two] = [net(1), net(2)];
    const named = (id: string, network: ReturnType<typeof net>, host: number) => {
      const request = aSandbox(id, [network], host);
      return {...request, attachments: request.attachments.map(a => ({...a, aliases: [id]}))};
    };
    const a = (await driver.createSandbox(named('a', one, 10))).netnsPath;
    await driver.createSandbox(named('b', one, 11));
    const c = (await driver.createSandbox(named('c', two, 10))).netnsPath;
    const lookup = (netns: string, name: string, server: string, seconds = 10): string => {
      try {
        return /^Address: (172\S+)$/m.exec(sh('nsenter', `--net=${netns}`, 'busybox', 'nslookup', `-timeout=${seconds}`, '-retry=1', '-type=a', name, server).split('\n\n').slice(1).join('\n'))?.[1] ?? '';
      } catch {
        return '';
      }
    };
    expect(lookup(a, 'b', one.gateway)).toBe('172.31.0.11');
    // The first network's gateway can be reached from the other, too: strangers are turned away.
    expect(lookup(c, 'b', one.gateway, 1)).toBe('');
    world.inHost('nft', 'flush', 'ruleset');
    await until('names again', () => lookup(a, 'b', one.gateway, 1) === '172.31.0.11');
    await driver.close();
    driver = await world.networking();
    await driver.open();
    expect(lookup(a, 'b', one.gateway)).toBe('172.31.0.11');
    await Promise.all(['a', 'b', 'c'].map(id => driver.removeSandbox(id)));
    await Promise.all(['net1', 'net2'].map(id => driver.removeNetwork(id)));
    expect(world.inHost(iptables, '-S', 'INPUT').split('\n').filter(line => line.startsWith('-A'))).toEqual([]);
  });

  test('rules that somebody flushed come back, and a DROP policy that comes later is met', async () => {
    await driver.close();
    driver = await world.networking({checkMs: 50});
    await driver.open();
    const a = (await driver.createSandbox(aSandbox('a', [net(1)], 10, [{}]))).netnsPath;
    await world.serve(a, 'tcp', 80);
    world.inHost('nft', 'flush', 'ruleset');
    world.inHost('iptables-nft', '-P', 'FORWARD', 'DROP');
    await until('published again', () => world.ask(world.path(world.internet), 'tcp', HOST, 8080) === `${INTERNET}: hello`);
  });

  test('a bridge that somebody deleted comes back with all that was plugged in', async () => {
    await driver.close();
    driver = await world.networking({checkMs: 50});
    await driver.open();
    const [one, other] = [net(1), net(2)];
    const a = (await driver.createSandbox(aSandbox('a', [one], 10, [{}]))).netnsPath;
    const b = (await driver.createSandbox(aSandbox('b', [one, other], 11))).netnsPath;
    await world.serve(a, 'tcp', 80);
    world.inHost('ip', 'link', 'del', one.bridgeName);
    await until('its neighbour to be reached again', () => world.ask(b, 'tcp', '172.31.0.10', 80, 3_000) === '172.31.0.11: hello');
    await until('published again', () => world.ask(world.path(world.internet), 'tcp', HOST, 8080, 3_000) === `${INTERNET}: hello`);
    // What is not on record any more is not made again.
    await driver.removeSandbox('a');
    await driver.removeSandbox('b');
    for (const network of [one, other]) await driver.removeNetwork(network.id);
    await until('no bridge to be left', () => world.inHost('ip', '-j', 'link', 'show', 'type', 'bridge').trim() === '[]');
  });

  test('connect, disconnect, and a second interface', async () => {
    const [one, two] = [net(1), net(2)];
    const a = (await driver.createSandbox(aSandbox('a', [one], 10, [{}]))).netnsPath;
    const b = (await driver.createSandbox(aSandbox('b', [two, one], 11))).netnsPath;
    await world.serve(a, 'tcp', 80);
    await world.serve(b, 'tcp', 80);
    expect(world.ask(a, 'tcp', '172.31.0.11', 80)).toBe('172.31.0.10: hello');
    expect(world.askInVain(a, 'tcp', '172.32.0.11', 80)).toBe('silence');
    await driver.connect('a', two, anAttachment(two, 10, {isDefaultRoute: false}));
    await driver.connect('a', two, anAttachment(two, 10, {isDefaultRoute: false}));
    expect(world.ask(a, 'tcp', '172.32.0.11', 80)).toBe('172.32.0.10: hello');
    await driver.disconnect('a', 'net1');
    await driver.disconnect('a', 'net1');
    // Route and published port move to the network that is left.
    await world.serve(world.path(world.internet), 'tcp', 99);
    expect(world.ask(a, 'tcp', INTERNET, 99)).toBe(`${HOST}: hello`);
    expect(world.ask(world.path(world.internet), 'tcp', HOST, 8080)).toBe(`${INTERNET}: hello`);
    await expect(driver.removeNetwork('net2')).rejects.toMatchObject({kind: 'conflict', message: 'network net-2 has active endpoints'});
  });

  test('options of a network: no inter-container traffic, no masquerade, MTU, host binding', async () => {
    const closed = net(1, {options: {'com.docker.network.bridge.enable_icc': 'false', 'com.docker.network.driver.mtu': '1300', 'com.docker.network.bridge.host_binding_ipv4': '127.0.0.1'}});
    const plain = net(2, {options: {'com.docker.network.bridge.enable_ip_masquerade': 'false'}});
    const a = (await driver.createSandbox(aSandbox('a', [closed], 10, [{}]))).netnsPath;
    const b = (await driver.createSandbox(aSandbox('b', [closed], 11))).netnsPath;
    const c = (await driver.createSandbox(aSandbox('c', [plain], 10))).netnsPath;
    await world.serve(a, 'tcp', 80);
    await world.serve(world.path(world.internet), 'tcp', 99);
    expect(['silence', 'EHOSTUNREACH']).toContain(world.askInVain(b, 'tcp', '172.31.0.10', 80));
    expect(world.ask(world.path(world.host), 'tcp', '172.31.0.10', 80)).toBe('172.31.0.1: hello');
    expect(world.ask(world.path(world.host), 'tcp', '127.0.0.1', 8080)).toContain('hello');
    expect(world.ask(world.path(world.internet), 'tcp', HOST, 8080)).toBe('refused');
    expect(sh('nsenter', `--net=${a}`, 'ip', '-j', 'link', 'show', 'dev', 'eth0')).toContain('"mtu":1300');
    expect(world.askInVain(c, 'tcp', INTERNET, 99)).toBe('silence');
    sh('ip', '-n', world.internet, 'route', 'add', '172.32.0.0/16', 'via', HOST);
    expect(world.ask(c, 'tcp', INTERNET, 99)).toBe('172.32.0.10: hello');
  });

  test('an agent that is killed finds its sandboxes again; orphans go, ports are held again, a second life works', async () => {
    const a = (await driver.createSandbox(aSandbox('a', [net(1)], 10, [{}]))).netnsPath;
    await world.serve(a, 'tcp', 80);
    await driver.kill();
    // Nothing of ours runs, and the container is served all the same.
    expect(world.ask(world.path(world.internet), 'tcp', HOST, 8080)).toBe(`${INTERNET}: hello`);
    driver = await world.networking();
    await driver.open();
    expect(await driver.sandboxes()).toEqual(['a']);
    expect(world.ask(world.path(world.internet), 'tcp', HOST, 8080)).toBe(`${INTERNET}: hello`);
    await expect(driver.createSandbox(aSandbox('b', [net(1)], 11, [{}]))).rejects.toMatchObject({message: /port is already allocated/});
    expect((await driver.createSandbox(aSandbox('a', [net(1)], 10, [{}]))).netnsPath).toBe(a);
    const b = (await driver.createSandbox(aSandbox('b', [net(1)], 11))).netnsPath;
    expect(world.ask(b, 'tcp', '172.31.0.10', 80)).toBe('172.31.0.11: hello');
    await driver.removeSandbox('a');
    await driver.removeSandbox('b');
    await driver.removeNetwork('net1');
    await driver.close();
    expect(world.leftovers()).toMatchObject({namespaces: [], records: []});
  });

  test('what is removed leaves nothing; repeated removal is a success', async () => {
    const before = world.leftovers();
    for (let i = 0; i < 12; i += 1) await driver.createSandbox(aSandbox(`c${i}`, [net(1), net(2)], 10 + i, [{hostPort: 9000 + i}]));
    const empty = (await driver.createEmptySandbox('none')).netnsPath;
    expect(sh('nsenter', `--net=${empty}`, 'ip', '-br', 'link').trim().split('\n')).toHaveLength(1);
    expect((await driver.bridges()).sort()).toEqual([net(1).bridgeName, net(2).bridgeName]);
    await Promise.all([...Array(12).keys()].map(i => driver.removeSandbox(`c${i}`)));
    await driver.removeSandbox('none');
    await driver.removeSandbox('c0');
    await driver.removeNetwork('net1');
    await driver.removeNetwork('net1');
    await driver.removeNetwork('net2');
    expect(await driver.sandboxes()).toEqual([]);
    expect(await driver.bridges()).toEqual([]);
    await driver.close();
    expect(before.records).toEqual([]);
    await until('interfaces are gone', () => world.leftovers().interfaces.length === 0);
    expect(world.leftovers()).toMatchObject({namespaces: [], interfaces: [], records: []});
    expect(world.inHost('nft', 'list', 'ruleset')).not.toContain('9000');
  });

  test('purge takes everything off the machine, also after a kill', async () => {
    world.inHost('iptables-nft', '-P', 'FORWARD', 'DROP');
    await driver.createSandbox(aSandbox('a', [net(1), net(2)], 10, [{}]));
    await driver.kill();
    driver = await world.networking();
    await driver.purge();
    await driver.purge();
    await until('interfaces are gone', () => world.leftovers().interfaces.length === 0);
    expect(world.leftovers()).toEqual({namespaces: [], interfaces: [], tables: [], records: []});
    expect(world.inHost('iptables-nft', '-S', 'FORWARD').trim()).toBe('-P FORWARD DROP');
  });

  test('a foreign interface of the bridge\'s name is left alone', async () => {
    world.inHost('ip', 'link', 'add', net(1).bridgeName, 'type', 'bridge');
    await expect(driver.ensureNetwork(net(1))).rejects.toMatchObject({kind: 'conflict', message: /does not belong to network net-1/});
    await expect(driver.ensureNetwork(net(2, {bridgeName: 'x; reboot'}))).rejects.toMatchObject({kind: 'invalid'});
    // Another datacenter's bridge, say: answers would go to whichever route comes first.
    world.inHost('ip', 'link', 'add', 'foreign', 'type', 'bridge');
    world.inHost('ip', 'address', 'add', `${net(3).gateway}/24`, 'dev', 'foreign');
    await expect(driver.ensureNetwork(net(3))).rejects.toMatchObject({kind: 'conflict', message: /interface foreign of this machine has the address .* already/});
    world.inHost('ip', 'link', 'del', 'foreign');
    await driver.ensureNetwork(net(3));
    await driver.removeNetwork(net(3).id);
  });

  test('a warm start is quick', async () => {
    const one = net(1);
    await driver.ensureNetwork(one);
    const before = await driver.toolsStarted();
    const programMs: number[] = [];
    for (let i = 0; i < 10; i += 1) {
      await driver.createSandbox(aSandbox(`c${i}`, [one], 10 + i, [{hostPort: 9000 + i}]));
      await driver.removeSandbox(`c${i}`);
      const from = performance.now();
      await once(spawn('true'), 'exit');
      programMs.push(performance.now() - from);
    }
    const median = (times: readonly number[]): number => [...times].sort((x, y) => x - y)[5]!;
    // The one that waits in the namespace which is prepared behind each use, and none for the container itself: that would cost more than all the rest.
    expect(await driver.toolsStarted()).toBeLessThanOrEqual(before + 10);
    // Measured 2 ms with a published port on 2 idle cores. Where other tests keep the machine busy, a program that does nothing says how busy: the bound is some of those, as `ip` and `nft` would be.
    expect(median(driver.sandboxMs)).toBeLessThan(Math.max(25, 4 * median(programMs)));
  });
});
