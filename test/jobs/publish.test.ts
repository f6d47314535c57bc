/** Which host ports a container gets in a datacenter of several nodes, and who opens them. */
import {choosePorts, nodePorts, opensAtNode} from '../../lib/jobs/ports';

const tcp = (hostPort: number, hostIp = '') => ({protocol: 'tcp' as const, containerPort: 80, hostIp, hostPort});
const ask = {ephemeral: {from: 32768, to: 32770}, start: 0, endpoint: {name: 'web', id: 'e1'}};

test('a port that was ours to choose is kept where its container moves, if nobody has it by now', () => {
  expect(choosePorts({...ask, requested: [tcp(0)], held: [], before: [tcp(32770)]})).toEqual([tcp(32770)]);
  expect(choosePorts({...ask, requested: [tcp(0)], held: [tcp(32770)], before: [tcp(32770)]})).toEqual([tcp(32768)]);
  expect(choosePorts({...ask, requested: [tcp(0), tcp(0)], held: [], before: [tcp(32770)]})).toEqual([tcp(32770), tcp(32768)]);
  expect(choosePorts({...ask, requested: [tcp(0, '127.0.0.1')], held: [], before: [tcp(32770)]})).toEqual([tcp(32768, '127.0.0.1')]);
});

test('a taken port is a conflict', () => {
  expect(() => choosePorts({...ask, requested: [tcp(8080)], held: [tcp(8080)]})).toThrow(expect.objectContaining({kind: 'conflict'}) as Error);
});

test('the node opens what is not an endpoint\'s address and has no header', () => {
  const endpoints = new Set(['10.0.0.1']);
  for (const hostIp of ['', '0.0.0.0', '127.0.0.1', '10.0.0.2']) expect(opensAtNode(tcp(1, hostIp), endpoints)).toBe(true);
  expect(opensAtNode(tcp(1, '10.0.0.1'), endpoints)).toBe(false);
  expect(opensAtNode({...tcp(1), proxyProtocol: 'v1'}, endpoints)).toBe(false);
});

test('a node is told of its own ports, in words that every version knows', () => {
  expect(nodePorts([{...tcp(1), proxyProtocol: 'v2', atEndpoints: true}, tcp(2)])).toEqual([tcp(2)]);
});
