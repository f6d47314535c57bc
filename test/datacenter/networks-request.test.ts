/** What a `network create` may ask: judged whole, in the Engine's words. */
import fc from 'fast-check';
import {CetusError} from '../../lib/base/errors';
import {networkRequest} from '../../lib/datacenter/networks-request';
import {chooseAddress, contains, defaultGateway, formatAddress, parseAddress, parseCidr} from '../../lib/jobs/ipam';

type Body = Parameters<typeof networkRequest>[0];
const message = (body: Partial<Body>): string => {
  try {
    networkRequest({Name: 'net', ...body} as Body);
  } catch (err) {
    if (err instanceof CetusError) return `${err.kind}: ${err.message}`;
    throw err;
  }
  return 'taken';
};
const ipam = (...Config: object[]): Partial<Body> => ({IPAM: {Config}} as Partial<Body>);
const options = (name: string, value: string): Partial<Body> => ({Options: {[`com.docker.network.${name}`]: value}});

test.each<[Partial<Body>, string]>([
  [{Name: ''}, 'invalid: invalid name: '], [{Name: 'bridge'}, 'forbidden: operation is not permitted on predefined bridge network '],
  [ipam({}), 'invalid: invalid network config:\ninvalid subnet : invalid CIDR block notation'], [ipam({Gateway: '10.0.0.1'}), 'invalid: invalid network config:\ninvalid subnet : invalid CIDR block notation'],
  [ipam({Subnet: '10.0.0.0'}), 'invalid: invalid network config:\ninvalid subnet 10.0.0.0: invalid CIDR block notation'],
  [ipam({Subnet: '10.0.0.0/33'}), 'invalid: invalid network config:\ninvalid subnet 10.0.0.0/33: invalid CIDR block notation'],
  [ipam({Subnet: '10.0.0.5/24'}), 'invalid: invalid network config:\ninvalid subnet 10.0.0.5/24: it should be 10.0.0.0/24'],
  [ipam({Subnet: '10.0.0.0/24', Gateway: '10.0.1.1'}), "invalid: invalid network config:\ninvalid gateway 10.0.1.1: parent subnet 10.0.0.0/24 doesn't contain this address"],
  [ipam({Subnet: '10.0.0.0/24', Gateway: 'foo'}), 'invalid: invalid network config:\ninvalid gateway foo: invalid address'],
  [ipam({Subnet: '10.0.0.0/24', Gateway: 'fd00::1'}), 'invalid: invalid network config:\ninvalid gateway fd00::1: parent subnet is an IPv4 block'],
  [ipam({Subnet: '10.0.0.0/24', Gateway: '10.0.0.255'}), 'internal: failed to allocate gateway (10.0.0.255): Address already in use'],
  [ipam({Subnet: '10.0.0.0/24', IPRange: '10.0.0.0/16'}), 'invalid: invalid network config:\ninvalid ip-range 10.0.0.0/16: CIDR block is bigger than its parent subnet 10.0.0.0/24'],
  [ipam({Subnet: '10.0.0.0/24', IPRange: '10.0.0.7/25', AuxiliaryAddresses: {a: '10.9.0.1'}}),
    "invalid: invalid network config:\n* invalid ip-range 10.0.0.7/25: it should be 10.0.0.0/25\n* invalid auxiliary address a: parent subnet 10.0.0.0/24 doesn't contain this address"],
  [ipam({Subnet: '10.0.0.0/24', IPRange: '10.0.1.0/25'}), "invalid: invalid network config:\ninvalid ip-range 10.0.1.0/25: parent subnet 10.0.0.0/24 doesn't contain ip-range"],
  [ipam({Subnet: '10.0.0.0/24'}, {Subnet: '10.0.1.0/24'}), "forbidden: bridge driver doesn't support multiple subnets"],
  [ipam({Subnet: 'fd00::/64'}), 'unsupported: IPAM.Config.subnet fd00::/64 is not supported: networks are IPv4 in this version'],
  [{EnableIPv6: true}, 'unsupported: EnableIPv6 is not supported: networks are IPv4 in this version'],
  [options('bridge.enable_icc', 'x'), 'invalid: failed to parse com.docker.network.bridge.enable_icc value: x (strconv.ParseBool: parsing "x": invalid syntax)'],
  [options('driver.mtu', 'x'), 'invalid: failed to parse com.docker.network.driver.mtu value: x (strconv.Atoi: parsing "x": invalid syntax)'], [options('driver.mtu', '-1'), 'invalid: invalid MTU number: -1'],
  [options('driver.mtu', '0'), 'taken'], [options('bridge.enable_ip_masquerade', 'F'), 'taken'], [options('bridge.name', 'br-shop'), 'taken'], [{Options: {mine: 'x'}}, 'taken'],
  [options('bridge.host_binding_ipv4', 'x'), 'invalid: failed to parse com.docker.network.bridge.host_binding_ipv4 value: x (nil ip)'],
  [options('bridge.name', 'a b'), 'invalid: invalid bridge name: a b'], [options('bridge.name', 'sixteencharacter'), 'invalid: invalid bridge name: sixteencharacter'],
  [options('bridge.inhibit_ipv4', 'true'), 'unsupported: network option com.docker.network.bridge.inhibit_ipv4 is not supported: nodes do not honour it'],
])('%j', (body, words) => expect(message(body)).toBe(words));

test('what is taken', () => {
  expect(networkRequest({Name: 'n', ...ipam({Subnet: '10.0.0.0/24', IPRange: '10.0.0.128/25', AuxiliaryAddresses: {a: '10.0.0.130'}})} as Body)).toMatchObject({subnet: '10.0.0.0/24', ipRange: '10.0.0.128/25', auxAddresses: {a: '10.0.0.130'}});
  expect(networkRequest({Name: 'n'} as Body)).toMatchObject({subnet: '', subnetOfPool: true});
  expect(networkRequest({Name: 'n', ...ipam({Subnet: '10.0.0.0/24'})} as Body).subnetOfPool).toBeUndefined();
});

test('property: a taken subnet has a gateway and addresses in its range, none of them twice, none at its edges', () => {
  const address = fc.integer({min: 0x0a000000, max: 0x0affffff}).map(formatAddress);
  const aligned = (text: string, bits: number): string => formatAddress(parseCidr(`${text}/${bits}`).base);
  fc.assert(fc.property(address, fc.integer({min: 16, max: 29}), fc.integer({min: 0, max: 3}), fc.boolean(), (base, bits, narrower, ranged) => {
    const Subnet = `${aligned(base, bits)}/${bits}`;
    const IPRange = `${aligned(base, Math.min(30, bits + narrower))}/${Math.min(30, bits + narrower)}`;
    const asked = networkRequest({Name: 'n', ...ipam({Subnet, ...(ranged ? {IPRange} : {})})} as Body);
    const subnet = parseCidr(asked.subnet!);
    const network = {id: 'n', name: 'n', subnet: asked.subnet!, ipRange: asked.ipRange!, auxAddresses: {}, gateway: defaultGateway(asked.subnet!, asked.ipRange!)};
    const used = new Set<string>();
    expect(contains(parseCidr(asked.ipRange || asked.subnet!), parseAddress(network.gateway))).toBe(true);
    for (let n = 0; n < 3; n += 1) {
      let given: string;
      try {
        given = chooseAddress({network, used});
      } catch (err) {
        expect((err as Error).message).toMatch(/^no available IPv4 addresses/);
        return;
      }
      expect(used.has(given) || given === network.gateway).toBe(false);
      expect(contains(subnet, parseAddress(given))).toBe(true);
      expect([subnet.first, subnet.last]).not.toContain(parseAddress(given));
      expect(() => chooseAddress({network, used: new Set([...used, given]), requested: given})).toThrow('Address already in use');
      used.add(given);
    }
  }));
});

test('property: whatever is written as a subnet, it is taken as a block or refused in words', () => {
  const text = fc.oneof(fc.ipV4().chain((ip) => fc.integer({min: -1, max: 40}).map((bits) => `${ip}/${bits}`)), fc.ipV6().map((ip) => `${ip}/64`), fc.string({maxLength: 20}));
  fc.assert(fc.property(text, text, (Subnet, Gateway) => {
    const said = message(ipam({Subnet, Gateway}));
    expect(said).toMatch(/^(taken$|invalid: invalid network config:\n|unsupported: IPAM|internal: failed to allocate gateway)/);
  }));
});
