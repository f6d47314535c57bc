/** Networks across nodes, for real: needs root, iproute2 with `bridge`, nftables and busybox; touches nothing outside namespaces of its own. */
import {mergeTable, emptyTable, remotesOf} from '../../lib/agent/network/tables';
import {Counter, FleetNode, Nodes, OUTSIDER, UNDERLAY_MTU} from './network/nodes';
import {aNetwork, anAttachment, sh} from './network/world';

const VXLAN = 4789;
const OVERHEAD = 50;

async function until(what: string, condition: () => boolean, ms = 40_000): Promise<number> {
  const start = Date.now();
  while (!condition()) {
    if (Date.now() > start + ms) throw new Error(`never: ${what}`);
    await new Promise(next => setTimeout(next, 10));
  }
  return Date.now() - start;
}

const inside = (netns: string, ...command: string[]): string => sh('nsenter', `--net=${netns}`, ...command);
const tries = (netns: string, ...command: string[]): string => { try { return inside(netns, ...command); } catch { return ''; } };
const lookup = (netns: string, name: string, server: string): string[] =>
  [...tries(netns, 'busybox', 'nslookup', '-timeout=5', '-retry=1', '-type=a', name, server).split('\n\n').slice(1).join('\n').matchAll(/^Address: (172\S+)$/gm)].map(m => m[1]!).sort();

/** An Ethernet frame with a UDP datagram in it, in VXLAN of that segment. */
function forged(vni: number, frame: {toMac: string; fromMac: string; from: string; to: string; port: number}): string {
  const mac = (text: string): Buffer => Buffer.from(text.replaceAll(':', ''), 'hex');
  const ip = (text: string): Buffer => Buffer.from(text.split('.').map(Number));
  const udp = Buffer.alloc(12);
  udp.writeUInt16BE(5555, 0);
  udp.writeUInt16BE(frame.port, 2);
  udp.writeUInt16BE(12, 4);
  udp.write('evil', 8);
  const head = Buffer.concat([Buffer.from([0x45, 0, 0, 32, 0, 1, 0, 0, 64, 17, 0, 0]), ip(frame.from), ip(frame.to)]);
  let sum = 0;
  for (let i = 0; i < 20; i += 2) sum += head.readUInt16BE(i);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  head.writeUInt16BE(~sum & 0xffff, 10);
  const vxlan = Buffer.from([8, 0, 0, 0, 0, 0, 0, 0]);
  vxlan.writeUIntBE(vni, 4, 3);
  return Buffer.concat([vxlan, mac(frame.toMac), mac(frame.fromMac), Buffer.from([8, 0]), head, udp]).toString('hex');
}

describe('networks across nodes', () => {
  let world: Nodes;
  let one: FleetNode;
  let two: FleetNode;
  let three: FleetNode;

  beforeEach(async () => {
    world = new Nodes(3);
    [one, two, three] = world.nodes as [FleetNode, FleetNode, FleetNode];
    await Promise.all(world.nodes.map(node => node.start()));
  });
  afterEach(() => world.destroy());

  const net = (n: number, part = {}) => aNetwork(world.tag, n, {vni: 70_000 + n, ...part});
  const peer = (mode: string, netns: string, ...args: string[]): string => inside(netns, process.execPath, require.resolve('./network/peer.cjs'), mode, ...args).trim();

  test('containers talk by address and by name, with the whole packet that fits, and each node answers for its own gateway', async () => {
    const front = net(1);
    const a = await world.container(one, 'a', [front], 10);
    const b = await world.container(two, 'b', [front], 11);
    const c = await world.container(three, 'c', [front], 12);
    await world.tell(front);
    await world.serve(b, 'tcp', 80);
    await world.serve(b, 'udp', 53);
    await world.serve(c, 'tcp', 80);
    expect(world.ask(a, 'tcp', '172.31.0.11', 80)).toBe('172.31.0.10: hello');
    expect(world.ask(a, 'udp', '172.31.0.11', 53)).toBe('172.31.0.10: hello');
    expect(world.ask(a, 'tcp', '172.31.0.12', 80)).toBe('172.31.0.10: hello');
    expect(inside(b, 'busybox', 'ping', '-c', '1', '-W', '10', '172.31.0.10')).toContain('1 packets received');

    expect(lookup(a, 'b', front.gateway)).toEqual(['172.31.0.11']);
    expect(lookup(b, 'a.net-1', front.gateway)).toEqual(['172.31.0.10']);
    expect(tries(a, 'busybox', 'nslookup', '-type=ptr', '12.0.31.172.in-addr.arpa', front.gateway)).toContain('c.net-1');

    // Exactly what fits goes in one packet of the underlay's size; a byte more is two, divided before the tunnel.
    const mtu = UNDERLAY_MTU - OVERHEAD;
    expect(inside(a, 'ip', '-j', 'link', 'show', 'dev', 'eth0')).toContain(`"mtu":${mtu}`);
    const whole = new Counter(world.path(two.ns), 'underlay', `udp dport ${VXLAN} ip length ${UNDERLAY_MTU}`);
    expect(inside(a, 'busybox', 'ping', '-c', '3', '-W', '10', '-s', String(mtu - 28), '172.31.0.11')).toContain('3 packets received');
    expect(whole.packets).toBe(3);
    whole.remove();
    const divided = new Counter(world.path(two.ns), 'underlay', 'ip frag-off & 0x3fff != 0');
    expect(inside(a, 'busybox', 'ping', '-c', '1', '-W', '10', '-s', String(mtu - 27), '172.31.0.11')).toContain('1 packets received');
    expect(divided.packets).toBe(0);
    divided.remove();

    // The gateway is the node's own: asking it, by ARP too, sends nothing to the others.
    const sent = new Counter(world.path(world.switch), 'p1', `udp dport ${VXLAN}`);
    inside(a, 'ip', 'neigh', 'flush', 'dev', 'eth0');
    expect(inside(a, 'busybox', 'ping', '-c', '1', '-W', '10', front.gateway)).toContain('1 packets received');
    expect(lookup(a, 'c', front.gateway)).toEqual(['172.31.0.12']);
    tries(a, 'busybox', 'ping', '-c', '1', '-W', '1', '172.31.0.99');
    expect(sent.packets).toBe(0);
    expect(inside(a, 'ip', 'neigh', 'show', front.gateway)).toContain('02:42:ac:1f:00:01');
  });

  test('nothing of one network arrives on another, whoever tries, and nobody gets what is for another', async () => {
    const [front, back] = [net(1), net(2)];
    const a = await world.container(one, 'a', [front], 10);
    const b = await world.container(two, 'b', [front], 11);
    const c = await world.container(two, 'c', [back], 10);
    await world.container(one, 'd', [back], 11);
    const bystander = await world.container(three, 'e', [front], 12);
    await world.tell(front);
    await world.tell(back);
    await world.serve(b, 'tcp', 80);
    await world.serve(c, 'tcp', 80);
    const atC = new Counter(c, 'eth0', 'ip saddr 172.31.0.0/16');
    const atE = new Counter(bystander, 'eth0', 'ip daddr { 172.31.0.10, 172.31.0.11, 172.32.0.0/16 }');
    // Through the gateway; then as though the other network were on the wire, with the right MAC; then with a stolen address of that network.
    expect(world.askInVain(a, 'tcp', '172.32.0.10', 80)).toBe('silence');
    inside(a, 'ip', 'route', 'add', '172.32.0.0/16', 'dev', 'eth0');
    inside(a, 'ip', 'neigh', 'replace', '172.32.0.10', 'lladdr', '02:42:ac:20:00:0a', 'dev', 'eth0', 'nud', 'permanent');
    expect(world.askInVain(a, 'tcp', '172.32.0.10', 80)).toBe('silence');
    for (let host = 9; host < 13; host += 1) tries(a, 'busybox', 'ping', '-c', '1', '-W', '1', `172.32.0.${host}`);
    inside(a, 'ip', 'addr', 'add', '172.32.0.11/16', 'dev', 'eth0');
    expect(world.askInVain(a, 'tcp', '172.32.0.10', 80)).toMatch(/silence|EHOSTUNREACH/);
    expect(atC.packets).toBe(0);
    inside(a, 'ip', 'addr', 'del', '172.32.0.11/16', 'dev', 'eth0');
    expect(lookup(a, 'c', front.gateway)).toEqual([]);
    expect(lookup(a, 'c', back.gateway)).toEqual([]);

    expect(world.ask(a, 'tcp', '172.31.0.11', 80)).toBe('172.31.0.10: hello');
    expect(atE.packets).toBe(0);

    // With another's address or MAC nothing leaves for another node.
    const atB = new Counter(b, 'eth0', 'ip saddr 172.31.0.12');
    inside(a, 'ip', 'addr', 'add', '172.31.0.12/32', 'dev', 'eth0');
    tries(a, 'busybox', 'ping', '-I', '172.31.0.12', '-c', '2', '-W', '1', '172.31.0.11');
    expect(atB.packets).toBe(0);
  });

  test('without inter-container traffic there is none across nodes either; internal networks reach across and not out', async () => {
    const closed = net(1, {options: {'com.docker.network.bridge.enable_icc': 'false'}});
    const inner = net(2, {internal: true});
    const a = await world.container(one, 'a', [closed], 10);
    const b = await world.container(two, 'b', [closed], 11);
    const c = await world.container(one, 'c', [inner], 10);
    const d = await world.container(two, 'd', [inner], 11);
    await world.tell(closed);
    await world.tell(inner);
    await world.serve(b, 'tcp', 80);
    await world.serve(d, 'tcp', 80);
    await world.serve(world.path(world.switch), 'tcp', 99);
    expect(world.askInVain(a, 'tcp', '172.31.0.11', 80)).toMatch(/silence|EHOSTUNREACH/);
    expect(world.ask(a, 'tcp', OUTSIDER, 99)).toBe('10.77.0.1: hello');
    expect(world.ask(c, 'tcp', '172.32.0.11', 80)).toBe('172.32.0.10: hello');
    expect(world.ask(c, 'tcp', OUTSIDER, 99)).toBe('ENETUNREACH');
  });

  test('forged packets of the tunnel come in from no container, no program of a node and no stranger', async () => {
    const front = net(1);
    const a = await world.container(one, 'a', [front], 10);
    const b = await world.container(two, 'b', [front], 11);
    await world.tell(front);
    const packet = forged(front.vni!, {toMac: '02:42:ac:1f:00:0b', fromMac: '02:42:ac:1f:00:0a', from: '172.31.0.10', to: '172.31.0.11', port: 7});
    const evil = new Counter(b, 'eth0', 'udp dport 7');
    const own = world.path(one.ns);
    peer('send', a, two.underlay.address, String(VXLAN), packet);
    peer('send', own, two.underlay.address, String(VXLAN), packet);
    peer('send', world.path(world.switch), two.underlay.address, String(VXLAN), packet);
    // To the node that the container itself is on, with the address of another node.
    const backwards = forged(front.vni!, {toMac: '02:42:ac:1f:00:0a', fromMac: '02:42:ac:1f:00:0b', from: '172.31.0.11', to: '172.31.0.10', port: 7});
    const atA = new Counter(a, 'eth0', 'udp dport 7');
    peer('send', a, one.underlay.address, String(VXLAN), backwards);
    inside(a, 'ip', 'addr', 'add', `${two.underlay.address}/32`, 'dev', 'eth0');
    peer('send', a, one.underlay.address, String(VXLAN), backwards);
    inside(a, 'ip', 'addr', 'del', `${two.underlay.address}/32`, 'dev', 'eth0');
    // What is honest comes behind all of these.
    await world.serve(b, 'udp', 53);
    expect(world.ask(a, 'udp', '172.31.0.11', 53)).toBe('172.31.0.10: hello');
    expect(evil.packets).toBe(0);
    expect(atA.packets).toBe(0);

    // The packet is good: without the rules of the sender's node it arrives.
    one.run('nft', 'delete', 'table', 'ip', `cetus_${one.prefix}`);
    peer('send', own, two.underlay.address, String(VXLAN), packet);
    await until('the forged packet arrives where nothing guards', () => evil.packets === 1);
  });

  test('a container that moves is reached by its peers at once; what is told late changes nothing', async () => {
    const front = net(1);
    const a = await world.container(one, 'a', [front], 10);
    const b = await world.container(two, 'b', [front], 11);
    await world.tell(front);
    const before = world.table(front);
    await world.serve(b, 'udp', 53);
    const client = world.repeat(a, '172.31.0.11', 53);
    await until('the first answers', () => client.heard > 2);
    await two.driver.removeSandbox('b');
    const there = await world.container(three, 'b', [front], 11);
    await world.serve(there, 'udp', 53);
    const heard = client.heard;
    await world.tell(front);
    expect(await until('answers from the new place', () => client.heard > heard + 2, 20_000)).toBeLessThan(1000);
    expect(lookup(a, 'b', front.gateway)).toEqual(['172.31.0.11']);
    await one.driver.applyTable(front, before);
    const later = client.heard;
    await until('answers still', () => client.heard > later + 5);

    // And here, where it was elsewhere before.
    await three.driver.removeSandbox('b');
    world.place(one, 'b', anAttachment(front, 11, {aliases: ['b']}));
    await world.tell(front);
    const home = (await one.driver.createSandbox({containerId: 'b', hostname: 'b', containerName: 'b', networks: [front], attachments: [anAttachment(front, 11, {aliases: ['b']})], ports: []})).netnsPath;
    await world.serve(home, 'udp', 53);
    const last = client.heard;
    await until('answers from next door', () => client.heard > last + 2);
  });

  test('a killed agent disturbs nobody, and the next one knows what it was told and no more than it is told', async () => {
    const front = net(1);
    const a = await world.container(one, 'a', [front], 10);
    const b = await world.container(two, 'b', [front], 11);
    await world.container(three, 'c', [front], 12);
    await world.tell(front);
    await world.serve(b, 'udp', 53);
    const client = world.repeat(a, '172.31.0.11', 53);
    await until('the first answers', () => client.heard > 2);
    await one.kill();
    const heard = client.heard;
    await until('answers without an agent', () => client.heard > heard + 5);
    await one.start();
    expect(lookup(a, 'b', front.gateway)).toEqual(['172.31.0.11']);
    const later = client.heard;
    await until('answers with the next agent', () => client.heard > later + 5);
    world.gone('net1', '172.31.0.12');
    await world.tell(front);
    expect(lookup(a, 'c', front.gateway)).toEqual([]);
    expect(one.run('bridge', 'fdb', 'show')).not.toContain('02:42:ac:1f:00:0c');
    expect(one.run('ip', 'neigh', 'show', '172.31.0.12')).toBe('');
    expect(one.run('nft', 'list', 'set', 'bridge', `cetus_${one.prefix}`, 'remote')).not.toContain('172.31.0.12');
    expect(one.run('nft', 'list', 'set', 'ip', `cetus_${one.prefix}`, 'peers')).not.toContain(three.underlay.address);

    // Rules that somebody flushed.
    await one.kill();
    one.run('nft', 'flush', 'ruleset');
    await one.start({checkMs: 50});
    await world.serve(b, 'tcp', 80);
    expect(world.ask(a, 'tcp', '172.31.0.11', 80)).toBe('172.31.0.10: hello');
    one.run('nft', 'flush', 'ruleset');
    await until('rules of the tunnels again', () => one.run('nft', 'list', 'ruleset').includes('out_of_tunnel'));
  });

  test('connect and disconnect go across too, and what is removed leaves nothing', async () => {
    const [front, back] = [net(1), net(2)];
    const a = await world.container(one, 'a', [front], 10);
    const b = await world.container(two, 'b', [back], 11);
    // Told before the network is there: it waits for it.
    const place = anAttachment(back, 10, {isDefaultRoute: false, aliases: ['a']});
    world.place(one, 'a', place);
    await world.tell(back);
    await one.driver.connect('a', back, place);
    const server = await world.serve(b, 'tcp', 80);
    expect(world.ask(a, 'tcp', '172.32.0.11', 80)).toBe('172.32.0.10: hello');
    await world.stop(server);
    expect(lookup(a, 'b', back.gateway)).toEqual(['172.32.0.11']);
    await one.driver.disconnect('a', back.id);
    world.gone(back.id, '172.32.0.10');
    await world.tell(back);
    expect(lookup(b, 'a', back.gateway)).toEqual([]);
    await one.driver.removeSandbox('a');
    await two.driver.removeSandbox('b');
    // A table that comes late makes nothing again.
    for (const node of world.nodes) for (const network of [front, back]) await node.driver.removeNetwork(network.id);
    await world.tell(back);
    for (const node of world.nodes) await node.driver.close();
    // The kernel takes a namespace's interfaces apart behind our back.
    for (const node of world.nodes) await until(`nothing is left: ${JSON.stringify(node.leftovers())}`, () => node.leftovers().interfaces.length + node.leftovers().namespaces.length === 0);
    for (const node of world.nodes) {
      await node.driver.purge();
      expect(node.leftovers().tables).toEqual([]);
    }
  });

  test('a network that gets its segment later, and an agent with another underlay or none', async () => {
    const {vni, ...alone} = net(1);
    const a = await world.container(one, 'a', [alone], 10);
    const b = await world.container(two, 'b', [{...alone, vni: vni!}], 11);
    await world.tell({...alone, vni: vni!});
    await world.serve(a, 'tcp', 80);
    expect(world.ask(b, 'tcp', '172.31.0.10', 80)).toBe('172.31.0.11: hello');
    await one.kill();
    await one.start({underlay: {...one.underlay, port: 4790}});
    expect(one.run('ip', '-d', 'link', 'show', 'type', 'vxlan')).toContain('dstport 4790');
    await one.kill();
    await one.start({underlay: undefined});
    expect(one.run('ip', 'link', 'show', 'type', 'vxlan')).toBe('');
    expect(one.run('nft', 'list', 'tables')).not.toContain('bridge');
    expect(await one.driver.sandboxes()).toEqual(['a']);
  });

  test('ten thousand others are told in bounded time', async () => {
    const front = net(1);
    await world.container(one, 'a', [front], 10);
    const rows = Array.from({length: 10_000}, (_, i) => {
      const address = `172.31.${16 + (i >> 8)}.${i & 255}`;
      return {address, mac: `02:42:ac:1f:${(16 + (i >> 8)).toString(16).padStart(2, '0')}:${(i & 255).toString(16).padStart(2, '0')}`, containerId: `c${i}`, nodeId: 'node-2', aliases: [`c${i}`], version: String(i + 1000)};
    });
    const table = {rows, gone: [], nodes: world.table(front).nodes, asOf: '20000'};
    expect(remotesOf(mergeTable(emptyTable('net1'), table), one.underlay)).toHaveLength(10_000);
    const started = Date.now();
    await one.driver.applyTable(front, table);
    const first = Date.now() - started;
    await one.driver.applyTable(front, {rows: [{...rows[0]!, nodeId: 'node-3', version: '20001'}], gone: [], nodes: table.nodes});
    console.log(`10,000 rows: ${first} ms; one more: ${Date.now() - started - first} ms`);
    expect(one.run('sh', '-c', 'bridge fdb show | grep -c "dst 10.77.0.2 "').trim()).toBe('9999');
  });
});
