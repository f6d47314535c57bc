import fc from 'fast-check';
import {chooseAddress, contains, formatAddress, macOf, overlap, parseAddress, parseCidr} from '../../lib/jobs/ipam';
import {choosePorts, portKey} from '../../lib/jobs/ports';
import {blocksOf, chooseSubnet, DEFAULT_POOLS} from '../../lib/jobs/subnets';
import type {SubnetBlock} from '../../lib/schema/objects';

const network = {id: 'n'.repeat(8), name: 'front', subnet: '172.18.0.0/16', gateway: '172.18.0.1', ipRange: '', auxAddresses: {}};
const small = {...network, subnet: '10.0.0.0/29', gateway: '10.0.0.1'};

describe('addresses', () => {
  it('gives the lowest that is free, never network, broadcast, gateway or an auxiliary one', () => {
    expect(chooseAddress({network, used: new Set()})).toBe('172.18.0.2');
    expect(chooseAddress({network, used: new Set(['172.18.0.2', '172.18.0.4'])})).toBe('172.18.0.3');
    expect(chooseAddress({network: {...network, auxAddresses: {router: '172.18.0.2'}}, used: new Set()})).toBe('172.18.0.3');
  });

  it('keeps to the range, which may begin with the network itself', () => {
    expect(chooseAddress({network: {...network, ipRange: '172.18.5.0/24'}, used: new Set()})).toBe('172.18.5.0');
    expect(chooseAddress({network: {...network, ipRange: '172.18.0.0/24'}, used: new Set()})).toBe('172.18.0.2');
  });

  it('takes the hint where it is free, and what it shuns only at the end', () => {
    expect(chooseAddress({network, used: new Set(), hint: '172.18.0.9'})).toBe('172.18.0.9');
    expect(chooseAddress({network, used: new Set(['172.18.0.9']), hint: '172.18.0.9'})).toBe('172.18.0.2');
    expect(chooseAddress({network, used: new Set(), hint: '10.1.1.1'})).toBe('172.18.0.2');
    expect(chooseAddress({network, used: new Set(), shunned: new Set(['172.18.0.2'])})).toBe('172.18.0.3');
    expect(chooseAddress({network: small, used: new Set(['10.0.0.2', '10.0.0.3', '10.0.0.4', '10.0.0.5']), shunned: new Set(['10.0.0.6'])})).toBe('10.0.0.6');
  });

  it('refuses in the Engine\'s words', () => {
    expect(() => chooseAddress({network, used: new Set(['172.18.0.7']), requested: '172.18.0.7'})).toThrow('Address already in use');
    expect(() => chooseAddress({network, used: new Set(), requested: '172.18.0.1'})).toThrow('Address already in use');
    expect(() => chooseAddress({network, used: new Set(), requested: '172.19.0.1'})).toThrow('no configured subnet contains IP address 172.19.0.1');
    const used = new Set(['10.0.0.2', '10.0.0.3', '10.0.0.4', '10.0.0.5', '10.0.0.6']);
    expect(() => chooseAddress({network: small, used})).toThrow(`no available IPv4 addresses on this network's address pools: front (${network.id})`);
  });

  it('fills any subnet to the last address without giving one twice', () => {
    fc.assert(fc.property(fc.integer({min: 24, max: 30}), fc.nat(0xffffffff), (length, seed) => {
      const cidr = parseCidr(`${formatAddress(seed)}/${length}`);
      const net = {...network, subnet: `${formatAddress(cidr.base)}/${length}`, gateway: formatAddress(cidr.base + 1)};
      const used = new Set<string>();
      for (let n = 0; n < 2 ** (32 - length) - 3; n += 1) {
        const address = chooseAddress({network: net, used});
        expect(used.has(address)).toBe(false);
        expect(contains(cidr, parseAddress(address))).toBe(true);
        used.add(address);
      }
      expect(() => chooseAddress({network: net, used})).toThrow('no available IPv4 addresses');
    }), {numRuns: 30});
  });

  it('writes addresses as it reads them, and refuses what is none', () => {
    fc.assert(fc.property(fc.nat(0xffffffff), (n) => expect(parseAddress(formatAddress(n))).toBe(n)));
    for (const bad of ['', '1.2.3', '1.2.3.256', 'a.b.c.d', '1.2.3.4.5', '::1']) expect(() => parseAddress(bad)).toThrow('invalid IPv4 address');
    for (const bad of ['1.2.3.4', '1.2.3.4/33', '1.2.3.4/x']) expect(() => parseCidr(bad)).toThrow('invalid CIDR address');
    expect(macOf('172.18.0.2')).toBe('02:42:ac:12:00:02');
  });
});

describe('ports', () => {
  const ask = {ephemeral: {from: 32768, to: 32770}, start: 0, endpoint: {name: 'web', id: 'e1'}};
  const tcp = (hostPort: number, hostIp = '') => ({protocol: 'tcp' as const, containerPort: 80, hostIp, hostPort});

  it('keeps what is asked and finds free ones', () => {
    expect(choosePorts({...ask, requested: [tcp(8080), tcp(0), tcp(0)], held: [tcp(32768)]}).map((p) => p.hostPort)).toEqual([8080, 32769, 32770]);
  });

  it('knows that the wildcard collides with every address, and protocols with none', () => {
    const text = 'driver failed programming external connectivity on endpoint web (e1): Bind for 0.0.0.0:8080 failed: port is already allocated';
    expect(() => choosePorts({...ask, requested: [tcp(8080)], held: [tcp(8080, '127.0.0.1')]})).toThrow(text);
    expect(() => choosePorts({...ask, requested: [tcp(8080, '127.0.0.1')], held: [tcp(8080)]})).toThrow('Bind for 127.0.0.1:8080 failed');
    expect(choosePorts({...ask, requested: [tcp(8080, '127.0.0.1')], held: [tcp(8080, '127.0.0.2'), {...tcp(8080), protocol: 'udp'}]})).toHaveLength(1);
    expect(() => choosePorts({...ask, requested: [tcp(8080), tcp(8080)], held: []})).toThrow('already allocated');
    expect(() => choosePorts({...ask, requested: [tcp(0)], held: [32768, 32769, 32770].map((p) => tcp(p))})).toThrow('all ports are allocated');
  });

  it('takes the first free one of a range, what a foreign program held only at the end, and none outside', () => {
    const range = {...tcp(0), hostPortRange: {from: 8000, to: 8002}};
    expect(choosePorts({...ask, start: 0.9, requested: [range, range], held: [tcp(8001, '127.0.0.1')]})).toEqual([tcp(8000), tcp(8002)]);
    expect(choosePorts({...ask, requested: [range], held: [], shunned: new Set(['tcp/0.0.0.0/8000'])})).toEqual([tcp(8001)]);
    expect(choosePorts({...ask, requested: [range], held: [tcp(8001), tcp(8002)], shunned: new Set(['tcp/0.0.0.0/8000'])})).toEqual([tcp(8000)]);
    expect(() => choosePorts({...ask, requested: [range], held: [tcp(8000), tcp(8001), tcp(8002)]})).toThrow('all ports are allocated');
  });

  it('makes one key of the ways to write the wildcard', () => {
    expect(portKey(tcp(80))).toBe(portKey(tcp(80, '0.0.0.0')));
  });
});

describe('subnets', () => {
  const block = (subnet: string): SubnetBlock => ({block: blocksOf(subnet)[0]!, networks: {x: subnet}});
  const ask = {requested: '', taken: [], pools: DEFAULT_POOLS, avoid: []};

  it('takes the first of the pools that overlaps nothing', () => {
    expect(chooseSubnet(ask)).toBe('172.17.0.0/16');
    expect(chooseSubnet({...ask, taken: [block('172.17.4.0/24')]})).toBe('172.18.0.0/16');
    expect(chooseSubnet({...ask, avoid: ['172.16.0.0/12']})).toBe('192.168.0.0/20');
  });

  it('refuses what overlaps, however large or small, and says when nothing is left', () => {
    const overlaps = 'Pool overlaps with other one on this address space';
    expect(() => chooseSubnet({...ask, requested: '10.0.0.0/8', taken: [block('10.3.0.0/24')]})).toThrow(overlaps);
    expect(() => chooseSubnet({...ask, requested: '10.3.0.128/25', taken: [block('10.3.0.0/24')]})).toThrow(overlaps);
    expect(chooseSubnet({...ask, requested: '10.3.1.7/24', taken: [block('10.3.0.0/24')]})).toBe('10.3.1.0/24');
    expect(() => chooseSubnet({...ask, avoid: ['172.16.0.0/12', '192.168.0.0/16']})).toThrow('all predefined address pools have been fully subnetted');
    expect(() => chooseSubnet({...ask, requested: '0.0.0.0/0'})).toThrow('shorter than');
  });

  it('never gives two that overlap, and knows every block that they touch', () => {
    fc.assert(fc.property(fc.array(fc.tuple(fc.nat(0xffffffff), fc.integer({min: 9, max: 28})), {maxLength: 20}), (wishes) => {
      const given: string[] = [];
      for (const [base, length] of wishes) {
        try {
          given.push(chooseSubnet({...ask, requested: `${formatAddress(base)}/${length}`, taken: given.map(block)}));
        } catch (err) {
          expect(String(err)).toContain('overlaps');
        }
      }
      for (const a of given) for (const b of given) if (a !== b) {
        expect(overlap(parseCidr(a), parseCidr(b))).toBe(false);
      }
      for (const subnet of given) {
        const {first, last} = parseCidr(subnet);
        expect(blocksOf(subnet)).toContain(formatAddress(Math.floor(first / 65536) * 65536));
        expect(blocksOf(subnet)).toContain(formatAddress(Math.floor(last / 65536) * 65536));
      }
    }), {numRuns: 100});
  });
});
