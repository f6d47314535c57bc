import fc from 'fast-check';
import {difference, ourRules, type ForwardRule} from '../../../lib/agent/network/forward';
import {bridgeLines, bridgeMac, insideCommands, outsideLines, removeLines, type Plug} from '../../../lib/agent/network/links';
import {checkAttachment, checkNetwork, Names, optionsOf} from '../../../lib/agent/network/names';
import {forContainers, parseResolv} from '../../../lib/agent/network/resolv';
import {networkCommands, publicationCommands, tableText} from '../../../lib/agent/network/rules';
import {overlap} from '../../../lib/agent/network/ports';
import {checkHostIp} from '../../../lib/agent/network/reservations';
import type {NodeNetwork} from '../../../lib/schema/agent';
import type {NetworkAttachment} from '../../../lib/schema/container';

const network: NodeNetwork = {id: 'n1', account: 'default', name: 'bridge', bridgeName: 'br-1', subnet: '172.17.0.0/16', gateway: '172.17.0.1', internal: false, options: {}};
const attachment: NetworkAttachment = {
  networkId: 'n1', networkName: 'bridge', endpointId: 'e', address: '172.17.0.2', prefixLength: 16, gateway: '172.17.0.1', mac: '02:42:ac:11:00:02', aliases: [], isDefaultRoute: true, internal: false,
};
const plug: Plug = {networkId: 'n1', bridge: 'br-1', inside: 'eth0', outside: 'vx1', attachment};

describe('ip batches', () => {
  test('a bridge is made once, and brought to its state again', () => {
    expect(bridgeLines(network, 'cetus:x:', 1400, false)).toEqual([
      'link add br-1 address 02:42:ac:11:00:01 type bridge', 'link set br-1 alias cetus:x:n1', 'addr replace 172.17.0.1/16 dev br-1', 'link set br-1 mtu 1400 up',
    ]);
    expect(bridgeLines(network, 'cetus:x:', 1400, true).join()).not.toContain('link add');
    expect(bridgeMac('10.0.255.1')).toBe('02:42:0a:00:ff:01');
  });

  test('a container is plugged in: the interface, its address, the route last', () => {
    expect(insideCommands(plug, 1400, {make: false})).toEqual([
      {do: 'set', name: 'eth0', mac: '02:42:ac:11:00:02', mtu: 1400}, {do: 'address', name: 'eth0', address: '172.17.0.2', prefixLength: 16}, {do: 'defaultRoute', name: 'eth0', gateway: '172.17.0.1'},
    ]);
    expect(insideCommands(plug, 1400, {make: true})[0]).toEqual({do: 'pair', name: 'eth0', peer: 'vx1'});
    for (const none of [{isDefaultRoute: false}, {internal: true}]) expect(insideCommands({...plug, attachment: {...attachment, ...none}}, 1400, {make: false}).map(c => c.do)).not.toContain('defaultRoute');
  });

  test('ports are isolated where containers must not talk, and turn frames round where one publishes', () => {
    const closed = {...network, options: {'com.docker.network.bridge.enable_icc': 'false'}};
    expect(outsideLines(plug, closed, 1500, false)).toContain('link set vx1 type bridge_slave isolated on');
    expect(outsideLines(plug, network, 1500, true)).toContain('link set vx1 type bridge_slave hairpin on');
    expect(outsideLines(plug, network, 1500, false)).toEqual(['link set vx1 mtu 1500 master br-1 up', 'neigh replace 172.17.0.2 lladdr 02:42:ac:11:00:02 dev br-1 nud reachable']);
    expect(removeLines('ns', [plug])).toEqual(['link set vx1 down', 'netns del ns']);
  });
});

describe('nft rules', () => {
  test('adding and deleting name the same elements', () => {
    const publications = [{protocol: 'tcp' as const, hostIp: '', hostPort: 8080, address: '172.17.0.2', containerPort: 80}, {protocol: 'udp' as const, hostIp: '127.0.0.1', hostPort: 53, address: '172.17.0.2', containerPort: 53}];
    expect(publicationCommands('add', 't', publications)).toEqual(['add element ip t published { tcp . 8080 : 172.17.0.2 . 80 }', 'add element ip t published_at { 127.0.0.1 . udp . 53 : 172.17.0.2 . 53 }']);
    expect(publicationCommands('delete', 't', publications)).toEqual(['delete element ip t published { tcp . 8080 }', 'delete element ip t published_at { 127.0.0.1 . udp . 53 }']);
    expect(networkCommands('delete', 't', network)).toEqual(networkCommands('add', 't', network).map(c => c.replace('add', 'delete')));
  });

  test('internal networks are not masqueraded, networks without icc are not in `same`', () => {
    expect(networkCommands('add', 't', {...network, internal: true}).join()).toContain('internal');
    expect(networkCommands('add', 't', {...network, internal: true}).join()).not.toContain('masqueraded');
    expect(networkCommands('add', 't', {...network, options: {'com.docker.network.bridge.enable_icc': 'false'}}).join()).not.toContain('same');
    expect(networkCommands('add', 't', {...network, options: {'com.docker.network.bridge.enable_ip_masquerade': '0'}}).join()).not.toContain('masqueraded');
  });

  test('the whole table replaces the old one and holds every element', () => {
    const text = tableText('t', {networks: [network], publications: [], resolvers: []});
    expect(text.startsWith('table ip t\ndelete table ip t\ntable ip t {')).toBe(true);
    for (const command of networkCommands('add', 't', network)) expect(text).toContain(command);
  });
});

describe('the foreign FORWARD chain', () => {
  const comment = 'cetus ab';
  test('only rules with our comment are ours', () => {
    const listing = ['-P FORWARD DROP', '-A FORWARD -i br-1 -m comment --comment "cetus ab" -j ACCEPT', '-A FORWARD -o br-1 -m comment --comment "cetus abc" -j ACCEPT', '-A FORWARD -i docker0 -j ACCEPT',
      '-A INPUT -i br-1 -m conntrack --ctstate DNAT --ctorigdstport 53 -m comment --comment "cetus ab" -j ACCEPT'].join('\n');
    expect(ourRules(listing, comment)).toEqual([{chain: 'FORWARD', direction: '-i', bridge: 'br-1'}, {chain: 'INPUT', direction: '-i', bridge: 'br-1'}]);
  });

  test('applying the difference gives exactly the bridges, and then there is no difference', () => {
    const bridges = fc.uniqueArray(fc.constantFrom('a', 'b', 'c', 'd'));
    fc.assert(fc.property(bridges, bridges, (before, after) => {
      const rules = difference([], before).insert;
      const {insert, remove} = difference(rules, after);
      const end: ForwardRule[] = [...rules.filter(r => !remove.includes(r)), ...insert];
      expect(difference(end, after)).toEqual({insert: [], remove: []});
      expect(end).toHaveLength(after.length * 3);
      expect(difference([], after, ['FORWARD']).insert).toHaveLength(after.length * 2);
    }));
  });
});

describe('names and checks', () => {
  test('names are short enough and never repeat', () => {
    const names = new Names('abcde', 'zzz');
    const made = Array.from({length: 2000}, () => names.next());
    expect(new Set(made.map(n => n.hostInterface)).size).toBe(2000);
    expect(Math.max(...made.map(n => n.hostInterface.length))).toBeLessThanOrEqual(15);
    expect(() => new Names('Too-Long', 'a')).toThrow(/prefix/);
  });

  test('nothing but names and addresses reaches a tool', () => {
    expect(() => checkNetwork(network)).not.toThrow();
    for (const bad of [{bridgeName: 'x y'}, {bridgeName: 'a'.repeat(16)}, {bridgeName: '-x'}, {subnet: '1.2.3.4/99'}, {subnet: '::/0'}, {gateway: 'x'}, {id: 'a/b'}, {options: {'com.docker.network.driver.mtu': '1e99'}}])
      expect(() => checkNetwork({...network, ...bad})).toThrow(/invalid/);
    expect(() => checkAttachment(attachment)).not.toThrow();
    for (const bad of [{address: '1.2.3'}, {mac: 'zz'}, {prefixLength: 0}, {gateway: 'a\nb'}]) expect(() => checkAttachment({...attachment, ...bad})).toThrow(/invalid/);
    expect(() => checkHostIp('::1')).toThrow(/not supported/);
  });

  test('options have the Engine\'s defaults', () => {
    expect(optionsOf(network)).toEqual({icc: true, masquerade: true, hostBinding: '', mtu: undefined});
  });

  test('ports overlap where one of them has every address', () => {
    const port = (hostIp: string, hostPort = 80, protocol: 'tcp' | 'udp' = 'tcp') => ({hostIp, hostPort, protocol});
    expect(overlap(port(''), port('127.0.0.1'))).toBe(true);
    expect(overlap(port('10.0.0.1'), port('127.0.0.1'))).toBe(false);
    expect(overlap(port(''), port('0.0.0.0', 80, 'udp'))).toBe(false);
  });
});

describe('resolv.conf', () => {
  test('the host\'s servers without those that only the host can reach', () => {
    expect(forContainers('search a.example b.example\nnameserver 127.0.0.53\nnameserver 10.0.0.1 # office\nnameserver fe80::1\noptions ndots:2\n', ''))
      .toEqual({nameservers: ['10.0.0.1'], search: ['a.example', 'b.example'], options: ['ndots:2']});
  });
  test('systemd-resolved\'s list, and at last the Engine\'s default', () => {
    expect(forContainers('nameserver 127.0.0.53\n', 'nameserver 10.9.8.7\n').nameservers).toEqual(['10.9.8.7']);
    expect(forContainers('nameserver 127.0.0.53\n', '').nameservers).toEqual(['8.8.8.8', '8.8.4.4']);
    expect(forContainers('', '').nameservers).toEqual(['8.8.8.8', '8.8.4.4']);
  });
  test('the last search or domain line wins', () => {
    expect(parseResolv('search a\ndomain b c\n').search).toEqual(['b']);
  });
});
