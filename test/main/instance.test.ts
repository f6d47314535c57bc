/** Which block of addresses a new datacenter takes: one that nothing on the machine uses, with or without a carrier. */
import {chooseBlock, routedSubnets} from '../../lib/main/up/instance';

const ROUTES = [
  'Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT',
  'eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0',
  'ce-cda76ec8473b\t0000700A\t00000000\t0001\t0\t0\t0\t00F0FFFF\t0\t0\t0',
  'eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0', '',
].join('\n');

test('routes are subnets, the default route is none', () => {
  expect(routedSubnets(ROUTES)).toEqual(['10.112.0.0/20', '192.0.2.0/24']);
});

test('no two datacenters of one machine take the same block', () => {
  const used: string[] = [];
  for (let n = 0; n < 16; n += 1) {
    const block = chooseBlock('the same id for all', used);
    expect(used).not.toContain(block);
    used.push(block);
  }
  expect(chooseBlock('the same id for all', used)).toBe('172.16.0.0/12');
});

test('where something else holds all of 10.0.0.0/8, the block is outside of it', () => {
  expect(chooseBlock('any', ['10.0.0.0/8'])).toBe('172.16.0.0/12');
});
