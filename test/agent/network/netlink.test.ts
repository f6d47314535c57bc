import fc from 'fast-check';
import {answersIn, commandMessage, indexQuery, type LinkCommand, needsIndex} from '../../../lib/agent/network/netlink';

const to = {peerNamespaceFd: 9, index: 5};
const hex = (command: LinkCommand): string => commandMessage(command, 7, to).toString('hex');
const word = (n: number): string => Buffer.from(Uint32Array.of(n).buffer).toString('hex');
const ended = (sequence: number, errno: number): Buffer => Buffer.from([36, 0, 0, 0, 2, 0, 0, 0, sequence, 0, 0, 0, 0, 0, 0, 0, ...Buffer.from(Int32Array.of(-errno).buffer), ...Buffer.alloc(16)]);

describe('messages of rtnetlink', () => {
  test('an address', () => {
    expect(hex({do: 'address', name: 'eth0', address: '172.17.0.2', prefixLength: 16})).toBe(
      `${word(40)}14000506${word(7)}${word(0)}` + `02100000${word(5)}` + '08000200ac110002' + '08000100ac110002');
  });

  test('a default route replaces the one before', () => {
    expect(hex({do: 'defaultRoute', name: 'eth0', gateway: '10.0.0.1'})).toBe(
      `${word(44)}18000505${word(7)}${word(0)}` + `02000000fe03000100000000` + '080005000a000001' + `08000400${word(5)}`);
  });

  test('a pair: the other end is named and goes to the namespace of the descriptor', () => {
    const message = hex({do: 'pair', name: 'eth0', peer: 'vx1'});
    expect(message.slice(0, 16)).toBe(`${word(100)}10000506`);
    expect(message).toContain('0900030065746830000000');
    expect(message).toContain(Buffer.from('veth').toString('hex'));
    expect(message.endsWith(`0800030076783100` + `08001c00${word(9)}`)).toBe(true);
  });

  test('every message is as long as it says and ends on a boundary of four; only addresses and routes want an index', () => {
    const name = fc.stringMatching(/^[a-z0-9]{1,15}$/);
    const octet = fc.integer({min: 0, max: 255});
    const address = fc.tuple(octet, octet, octet, octet).map(parts => parts.join('.'));
    const command = fc.oneof(
      fc.record({do: fc.constant('pair' as const), name, peer: name}), fc.record({do: fc.constant('remove' as const), name}),
      fc.record({do: fc.constant('set' as const), name, mac: fc.constantFrom('02:42:ac:11:00:02', undefined), mtu: fc.option(fc.integer({min: 68, max: 65_535}), {nil: undefined})}),
      fc.record({do: fc.constant('address' as const), name, address, prefixLength: fc.integer({min: 1, max: 32})}), fc.record({do: fc.constant('defaultRoute' as const), name, gateway: address}));
    fc.assert(fc.property(command, fc.nat(), (one: LinkCommand, sequence) => {
      const message = commandMessage(one, sequence, to);
      expect([message.readUInt32LE(0), message.length % 4, message.readUInt32LE(8)]).toEqual([message.length, 0, sequence]);
      expect(needsIndex(one)).toBe(one.do === 'address' || one.do === 'defaultRoute');
    }));
  });

  test('answers: ends with their errors, links with their index, several in one datagram; nothing is read beyond its end', () => {
    const link = Buffer.from([32, 0, 0, 0, 16, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 42, 0, 0, 0, ...Buffer.alloc(8)]);
    const all = Buffer.concat([ended(1, 0), ended(2, 17), link]);
    expect(answersIn(all)).toEqual([{sequence: 1, kind: 'done', errno: 0}, {sequence: 2, kind: 'done', errno: 17}, {sequence: 3, kind: 'link', index: 42}]);
    expect(answersIn(all.subarray(0, 40))).toHaveLength(1);
    fc.assert(fc.property(fc.uint8Array({maxLength: 200}), bytes => { answersIn(Buffer.from(bytes)); }));
    expect(indexQuery('eth0', 3).readUInt16LE(4)).toBe(18);
  });
});
