import fc from 'fast-check';
import {emptyTable, mergeTable, remotesOf} from '../../../lib/agent/network/tables';
import {bridgeTableText, devicesIn, forwardingIn, forwardingLines, forwardingOf, peerCommands, plugCommands, tunnelLines, underlayRules} from '../../../lib/agent/network/tunnel';
import {tableText} from '../../../lib/agent/network/rules';
import {Names} from '../../../lib/agent/network/names';
import type {NetworkTable, NodeNetwork, TableRow} from '../../../lib/schema/agent';

const NODES = [1, 2, 3].map(n => ({nodeId: `n${n}`, address: `10.0.0.${n}`, generation: 1}));
const own = {address: '10.0.0.1', mtu: 1500};
const row = (address: string, nodeId: string, version: number, part: Partial<TableRow> = {}): TableRow => ({
  address, mac: `02:42:ac:11:00:0${address.slice(-1)}`, containerId: `c-${address}`, nodeId, aliases: [`name-${address.slice(-1)}`], version: String(version), ...part,
});
const told = (part: Partial<NetworkTable>): NetworkTable => ({rows: [], gone: [], nodes: NODES, ...part});
const merged = (...tables: NetworkTable[]) => tables.reduce(mergeTable, emptyTable('net'));

describe('what a node knows of others', () => {
  test('the newer of two is true, whichever comes first, and an end is not undone by what was before it', () => {
    const older = told({rows: [row('172.17.0.2', 'n2', 5)]});
    const newer = told({rows: [row('172.17.0.2', 'n3', 9)]});
    for (const order of [[older, newer], [newer, older]]) expect(merged(...order).rows['172.17.0.2']?.nodeId).toBe('n3');
    const end = told({gone: [{address: '172.17.0.2', version: '10'}]});
    expect(merged(older, end, newer).rows).toEqual({});
    expect(merged(end, older).rows).toEqual({});
    expect(merged(end, told({rows: [row('172.17.0.2', 'n2', 11)]})).rows).toHaveProperty(['172.17.0.2']);
    expect(merged(newer, told({gone: [{address: '172.17.0.2', version: '8'}]})).rows).toHaveProperty(['172.17.0.2']);
  });

  test('a whole table ends what is not in it, but nothing that is newer than it', () => {
    const before = merged(told({rows: [row('172.17.0.2', 'n2', 5), row('172.17.0.3', 'n2', 8)]}));
    const after = mergeTable(before, told({rows: [row('172.17.0.4', 'n2', 6)], asOf: '7'}));
    expect(Object.keys(after.rows).sort()).toEqual(['172.17.0.3', '172.17.0.4']);
    // What it ended without a witness may be told again.
    expect(mergeTable(after, told({rows: [row('172.17.0.2', 'n2', 5)]})).rows).toHaveProperty(['172.17.0.2']);
  });

  test('versions are compared as numbers', () => {
    expect(merged(told({rows: [row('172.17.0.2', 'n2', 9)]}), told({rows: [row('172.17.0.2', 'n3', 10)]})).rows['172.17.0.2']?.nodeId).toBe('n3');
  });

  test('changes in any order, repeated or not, come to the same', () => {
    const change = fc.record({address: fc.constantFrom('172.17.0.2', '172.17.0.3', '172.17.0.4'), node: fc.constantFrom('n1', 'n2', 'n3'), gone: fc.boolean()});
    fc.assert(fc.property(fc.array(change, {minLength: 1, maxLength: 12}), fc.array(fc.nat(), {minLength: 12, maxLength: 24}), (changes, picks) => {
      const tables = changes.map(({address, node, gone}, i) => (gone ? told({gone: [{address, version: String(i + 1)}]}) : told({rows: [row(address, node, i + 1)]})));
      const shuffled = [...picks.map(pick => tables[pick % tables.length]!), ...[...tables].sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? 1 : -1))];
      expect(merged(...shuffled).rows).toEqual(merged(...tables).rows);
    }));
  });

  test('a node\'s newer life is where it is now; nodes that nobody is on are forgotten', () => {
    const known = merged(told({rows: [row('172.17.0.2', 'n2', 5)]}), told({nodes: [{nodeId: 'n2', address: '10.0.0.9', port: 4790, generation: 2}]}), told({}));
    expect(remotesOf(known, own)).toEqual([{address: '172.17.0.2', mac: '02:42:ac:11:00:02', aliases: ['name-2'], node: '10.0.0.9', port: 4790}]);
    expect(Object.keys(known.nodes)).toEqual(['n2']);
  });

  test('elsewhere is neither here nor on a node that cannot be reached', () => {
    const known = merged(told({rows: [row('172.17.0.2', 'n1', 1), row('172.17.0.3', 'n2', 2), row('172.17.0.4', 'n9', 3)]}));
    expect(remotesOf(known, own).map(({address}) => address)).toEqual(['172.17.0.3']);
  });
});

describe('the tunnel of a network', () => {
  const network: NodeNetwork = {id: 'n', account: 'a', name: 'front', bridgeName: 'br', subnet: '172.17.0.0/16', gateway: '172.17.0.1', internal: false, options: {}, vni: 70_001};
  const remotes = remotesOf(merged(told({rows: [row('172.17.0.2', 'n2', 1), row('172.17.0.3', 'n3', 2)]})), own);

  test('learns nothing and is sent nothing that is for all; without inter-container traffic it talks to none of them', () => {
    const lines = tunnelLines('xt', network, own, 'cetus:t:', false).join('\n');
    expect(lines).toContain('link add xt type vxlan id 70001 local 10.0.0.1 dstport 4789 nolearning');
    expect(lines).toContain('learning off flood off mcast_flood off bcast_flood off neigh_suppress on isolated off');
    expect(tunnelLines('xt', {...network, options: {'com.docker.network.bridge.enable_icc': 'false'}}, own, 'cetus:t:', true).join()).toMatch(/^(?!.*link add).*isolated on/s);
    expect(new Names('abcde', '0').tunnel(2 ** 24 - 1).length).toBeLessThanOrEqual(15);
  });

  test('the kernel is brought from what it has to what it should have, and told nothing twice', () => {
    const to = forwardingOf(remotes);
    const none = {fdb: new Map<string, string>(), neighbours: new Map<string, string>()};
    expect(forwardingLines('xt', 'br', none, to)).toEqual({
      bridge: ['02', '03'].flatMap((n, i) => [`fdb replace 02:42:ac:11:00:${n} dev xt dst 10.0.0.${i + 2} port 4789 self static`, `fdb replace 02:42:ac:11:00:${n} dev xt master static sticky`]),
      ip: ['2', '3'].map(n => `neigh replace 172.17.0.${n} lladdr 02:42:ac:11:00:0${n} dev br nud permanent`),
    });
    expect(forwardingLines('xt', 'br', to, to)).toEqual({bridge: [], ip: []});
    const moved = forwardingOf(remotes.slice(0, 1).map(remote => ({...remote, node: '10.0.0.3'})));
    expect(forwardingLines('xt', 'br', to, moved)).toEqual({
      bridge: ['fdb del 02:42:ac:11:00:03 dev xt self', 'fdb del 02:42:ac:11:00:03 dev xt master', 'fdb replace 02:42:ac:11:00:02 dev xt dst 10.0.0.3 port 4789 self static'],
      ip: ['neigh del 172.17.0.3 dev br'],
    });
    expect(forwardingOf([...remotes, {...remotes[0]!, address: '172.17.0.9', node: '10.0.0.3'}]).fdb.get('02:42:ac:11:00:02')).toBe('10.0.0.2 4789');
  });

  test('what the kernel says of itself', () => {
    expect(forwardingIn(
      '[{"mac":"02:42:0a:00:00:02","flags":["sticky"],"master":"br0","state":"static"},{"mac":"02:42:0a:00:00:02","dst":"10.9.9.3","port":4791,"flags":["self"],"state":"static"},{"mac":"02:42:0a:00:00:03","dst":"10.9.9.4","flags":["self"]}]',
      '[{"dst":"10.0.0.2","lladdr":"02:42:0a:00:00:02","state":["PERMANENT"]}]',
    )).toEqual({fdb: new Map([['02:42:0a:00:00:02', '10.9.9.3 4791'], ['02:42:0a:00:00:03', '10.9.9.4 4789']]), neighbours: new Map([['10.0.0.2', '02:42:0a:00:00:02']])});
    expect(devicesIn('[{"ifname":"x1","ifalias":"cetus:t:net","linkinfo":{"info_data":{"id":7,"local":"10.0.0.1","port":4789}}},{"ifname":"x2","ifalias":"cetus:u:net"},{"ifname":"x3"}]', 'cetus:t:'))
      .toEqual([{name: 'x1', networkId: 'net', vni: 7, local: '10.0.0.1', port: 4789}]);
  });

  test('rules: one node has none of it; with an underlay who may speak is in sets', () => {
    const alone = tableText('t', {networks: [network], publications: [], resolvers: []});
    expect(alone).not.toMatch(/bridge t|peers|notrack/);
    const view = {underlay: own, tunnels: ['xt'], plugs: [], remotes: remotes.map(remote => ({tunnel: 'xt', remote}))};
    const text = tableText('t', {networks: [network], publications: [], resolvers: [], tunnels: view});
    for (const expected of ['ip daddr 10.0.0.1 udp dport 4789 jump tunnelled', 'add element ip t peers { 10.0.0.2 }', 'add element ip t peer_ports { 4789 }', 'iifname @bridges oifname != @bridges udp dport @peer_ports drop',
      'add element bridge t remote { "xt" . 02:42:ac:11:00:02 . 172.17.0.2 }', 'add element bridge t tunnels { "xt" }']) expect(text).toContain(expected);
    expect(bridgeTableText('t', undefined)).toBe('');
    expect(underlayRules({...own, port: 5000}).chains).toContain('udp dport 5000');
    expect(peerCommands('delete', 't', remotes)).toEqual(['delete element ip t peers { 10.0.0.2 }', 'delete element ip t peers { 10.0.0.3 }']);
    const attachment = {networkId: 'n', networkName: 'front', endpointId: 'e', address: '172.17.0.8', prefixLength: 16, gateway: '', mac: '02:42:AC:11:00:08', aliases: [], isDefaultRoute: false, internal: false};
    expect(plugCommands('add', 't', [{networkId: 'n', bridge: 'br', inside: 'eth0', outside: 'v1', attachment}])).toEqual(['add element bridge t own { "v1" . 02:42:ac:11:00:08 . 172.17.0.8 }']);
  });
});
