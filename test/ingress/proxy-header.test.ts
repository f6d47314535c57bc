/** Headers against the specification's own words, and what the label may say. */
import fc from 'fast-check';
import {withProxyProtocol} from '../../lib/datacenter/create/proxy-protocol';
import {proxyHeader} from '../../lib/ingress/proxy-header';
import type {RequestedPort} from '../../lib/schema/container';

const connection = {protocol: 'tcp' as const, from: {address: '192.168.0.1', port: 56324}, to: {address: '192.168.0.11', port: 443}};

test('version 1 is the specification\'s example', () => {
  expect(proxyHeader('v1', connection).toString()).toBe('PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n');
  expect(proxyHeader('v1', {...connection, from: {address: '::ffff:10.1.2.3', port: 1}}).toString()).toBe('PROXY TCP4 10.1.2.3 192.168.0.11 1 443\r\n');
});

test('version 2 has signature, command, family, length and both ends', () => {
  expect(proxyHeader('v2', connection).toString('hex')).toBe(`0d0a0d0a000d0a515549540a${'21'}${'11'}${'000c'}${'c0a80001'}${'c0a8000b'}${'dc04'}${'01bb'}`);
  expect(proxyHeader('v2', {...connection, protocol: 'udp'})[13]).toBe(0x12);
});

test('a reader of either version finds the same ends again', () => {
  const end = fc.record({address: fc.ipV4(), port: fc.integer({min: 1, max: 65_535})});
  fc.assert(fc.property(end, end, (from, to) => {
    const two = proxyHeader('v2', {protocol: 'tcp', from, to});
    const words = proxyHeader('v1', {protocol: 'tcp', from, to}).toString().trimEnd().split(' ');
    expect(words).toEqual(['PROXY', 'TCP4', from.address, to.address, String(from.port), String(to.port)]);
    expect([two.subarray(16, 20).join('.'), two.subarray(20, 24).join('.'), two.readUInt16BE(24), two.readUInt16BE(26)]).toEqual([from.address, to.address, from.port, to.port]);
  }));
});

const port = (text: string, hostIp = ''): RequestedPort => ({protocol: text.split('/')[1] as 'tcp', containerPort: Number(text.split('/')[0]), hostIp, hostPort: 0});
const versions = (label: string | undefined, ...texts: string[]): (string | undefined)[] => withProxyProtocol(texts.map((t) => port(t)), label).map((p) => p.proxyProtocol);

test('the label is for all tcp ports, or for those it names', () => {
  expect(versions('v1', '80/tcp', '53/udp', '443/tcp')).toEqual(['v1', undefined, 'v1']);
  expect(versions('80/tcp=v2,53/udp=v2', '80/tcp', '53/udp', '443/tcp')).toEqual(['v2', 'v2', undefined]);
  expect(versions(' 80=v1 , 443/tcp=v2', '80/tcp', '443/tcp')).toEqual(['v1', 'v2']);
  expect(versions(undefined, '80/tcp')).toEqual([undefined]);
  expect(versions('v2')).toEqual([]);
});

test.each(['', 'v3', 'V2', 'yes', '80/tcp', '80/sctp=v2', '53/udp=v1', '81/tcp=v2', '80/tcp=v1,80=v2', 'v2,v1', '80/tcp=v2,'])('"%s" is refused by name', (label) => {
  expect(() => versions(label, '80/tcp', '53/udp')).toThrow(`label cetus.ingress.proxy-protocol=${label}: `);
});

test('no IPv6 address', () => {
  expect(() => withProxyProtocol([port('80/tcp', '::1')], 'v2')).toThrow('::1 is no IPv4 address');
});
