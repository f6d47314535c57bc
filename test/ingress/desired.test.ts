/** What is to be open, and what is done about it, for any order of leases. */
import fc from 'fast-check';
import type {Publication} from '../../lib/datacenter/verbs';
import {decide, Desired, type Here, placeKey, sameTarget, type Target, wantedFor} from '../../lib/ingress/desired';

const HOSTS = new Map<string, string | undefined>([['here', undefined], ['twin', '10.0.0.1'], ['far', '10.0.0.9'], ['farther', '10.0.0.8']]);
const here: Here = {addresses: new Set(['127.0.0.1', '10.0.0.1']), hostOf: (node) => (HOSTS.has(node) ? HOSTS.get(node) : null)};
const publication = (more: Partial<Publication> = {}): Publication => ({
  protocol: 'tcp', hostIp: '', hostPort: 8080, account: 'default', containerId: 'c1', containerPort: 80, nodeId: 'far', atEndpoints: false, ...more,
});
const way = (more: Partial<Publication>): string | undefined => {
  const wanted = wantedFor(publication(more), here);
  return wanted && `${placeKey(wanted.place)} ${wanted.target.way.kind === 'node' ? wanted.target.way.host : 'agent'}`;
};

test('what a container elsewhere publishes is opened, and leads to its node', () => {
  expect(way({})).toBe('tcp/0.0.0.0/8080 10.0.0.9');
  expect(way({hostIp: '0.0.0.0', protocol: 'udp', nodeId: 'farther'})).toBe('udp/0.0.0.0/8080 10.0.0.8');
});

test('what the node of this very machine has open is not opened twice', () => {
  for (const nodeId of ['here', 'twin']) for (const hostIp of ['', '127.0.0.1', '10.0.0.1']) expect(way({nodeId, hostIp})).toBeUndefined();
  expect(way({nodeId: 'unheard of'})).toBeUndefined();
});

test('loopback is the endpoint\'s own, by the agent; an address is the endpoint\'s that has it', () => {
  expect(way({hostIp: '127.0.0.1'})).toBe('tcp/127.0.0.1/8080 agent');
  expect(way({hostIp: '10.0.0.1', atEndpoints: true})).toBe('tcp/10.0.0.1/8080 agent');
  expect(way({hostIp: '10.0.0.2', atEndpoints: true})).toBeUndefined();
  // An address of the node's own.
  expect(way({hostIp: '10.0.0.9'})).toBeUndefined();
  expect(way({hostIp: '::1', atEndpoints: true})).toBeUndefined();
});

test('what only endpoints open goes by the agent, on the same machine too', () => {
  for (const nodeId of ['here', 'twin', 'far']) expect(way({nodeId, atEndpoints: true, proxyProtocol: 'v2'})).toBe('tcp/0.0.0.0/8080 agent');
});

// ---- any order

const someKey = fc.constantFrom('a', 'b', 'c', 'd');
const somePublication = fc.record({
  protocol: fc.constantFrom('tcp' as const, 'udp' as const), hostIp: fc.constantFrom('', '0.0.0.0', '127.0.0.1', '10.0.0.1'), hostPort: fc.constantFrom(1, 2), account: fc.constant('default'),
  containerId: fc.constantFrom('c1', 'c2'), containerPort: fc.constantFrom(80, 81), nodeId: fc.constantFrom('here', 'far', 'farther'), atEndpoints: fc.boolean(),
});
const someStep = fc.oneof(fc.record({kind: fc.constant('put' as const), key: someKey, publication: somePublication}), fc.record({kind: fc.constant('drop' as const), key: someKey}));

test('whoever looks at the places that a change names, in whatever order, ends with what is wanted, and closes nothing that stays', () => {
  fc.assert(fc.property(fc.array(someStep, {maxLength: 40}), fc.nat(), (steps, seed) => {
    const desired = new Desired();
    const rows = new Map<string, Publication>();
    const open = new Map<string, Target>();
    const later: string[] = [];
    const look = (place: string): void => {
      const wanted = desired.at(place, here);
      const action = decide(open.get(place), wanted);
      switch (action.kind) {
        case 'open': expect(open.has(place)).toBe(false); open.set(place, action.wanted.target); break;
        case 'lead': expect(wanted).toBeDefined(); open.set(place, action.target); break;
        case 'close': expect(wanted).toBeUndefined(); open.delete(place); break;
        case 'none': break;
      }
      expect(decide(open.get(place), wanted)).toEqual({kind: 'none'});
    };
    steps.forEach((step, n) => {
      const places = step.kind === 'put' ? desired.put(step.key, step.publication) : desired.drop(step.key);
      if (step.kind === 'put') rows.set(step.key, step.publication);
      else rows.delete(step.key);
      // Some are looked at in time, others late.
      for (const place of places) if ((seed >> (n % 16)) & 1) later.push(place); else look(place);
    });
    later.forEach(look);
    const wanted = new Map<string, Target>();
    for (const [, row] of [...rows].sort(([a], [b]) => (a < b ? 1 : -1))) {
      const place = placeKey({protocol: row.protocol, address: row.hostIp === '' ? '0.0.0.0' : row.hostIp, port: row.hostPort});
      const found = wantedFor(row, here);
      if (found) wanted.set(place, found.target);
      else wanted.delete(place);
    }
    expect([...open.keys()].sort()).toEqual([...wanted.keys()].sort());
    // As far as a connection sees: two rows may say the same thing in other words.
    for (const [place, target] of open) expect([place, sameTarget(target, wanted.get(place)!), target.way]).toEqual([place, true, wanted.get(place)!.way]);
    expect([...desired.all()].sort()).toEqual([...new Set([...rows.values()].map((r) => `${r.protocol}/${r.hostIp || '0.0.0.0'}/${r.hostPort}`))].sort());
  }), {numRuns: 500});
});

test('a move, and another holder, lead elsewhere; the same again is nothing', () => {
  const at = (more: Partial<Publication>): Target => wantedFor(publication(more), here)!.target;
  const wanted = (more: Partial<Publication>) => wantedFor(publication(more), here);
  expect(decide(at({}), wanted({}))).toEqual({kind: 'none'});
  expect(decide(at({}), wanted({account: 'renamed'}))).toEqual({kind: 'none'});
  for (const more of [{nodeId: 'farther'}, {containerId: 'c2'}, {containerPort: 81}, {atEndpoints: true, proxyProtocol: 'v1' as const}]) expect(decide(at({}), wanted(more)).kind).toBe('lead');
  expect(decide(at({}), undefined)).toEqual({kind: 'close'});
  expect(decide(undefined, undefined)).toEqual({kind: 'none'});
});
