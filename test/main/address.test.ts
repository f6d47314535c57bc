import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {readAgentConfig, readEndpointConfig, readSitterConfig} from '../../lib/main/config';
import {formatListen, parseListen, reachableHost, requireSafe} from '../../lib/main/address';

test.each([
  ['127.0.0.1:2375', {kind: 'tcp', host: '127.0.0.1', port: 2375}],
  ['tcp://localhost:0', {kind: 'tcp', host: 'localhost', port: 0}],
  ['tcp://[::1]:2376', {kind: 'tcp', host: '::1', port: 2376}],
  [':2375', {kind: 'tcp', host: '0.0.0.0', port: 2375}],
  ['unix:///run/cetus.sock', {kind: 'unix', path: '/run/cetus.sock'}],
])('%s is understood', (text, expected) => {
  expect(parseListen(text)).toEqual(expected);
  if (!text.startsWith(':')) expect(parseListen(formatListen(parseListen(text)))).toEqual(expected);
});

test.each(['', '2375', '127.0.0.1:99999', 'unix://relative', 'http://127.0.0.1:1', `unix:///${'x'.repeat(120)}`])('%s is refused', (text) => {
  expect(() => parseListen(text)).toThrow(/listen address/);
});

test('nobody is sent to every address', () => {
  expect([':1', '[::]:1', '10.0.0.1:1', '[fd00::1]:1'].map((text) => reachableHost((parseListen(text) as {host: string}).host, 'db-1.example'))).toEqual(['db-1.example', 'db-1.example', '10.0.0.1', '[fd00::1]']);
  expect(reachableHost('::', 'fd00::2')).toBe('[fd00::2]');
});

test('only loopback is open without TLS', () => {
  for (const text of ['127.0.0.1:1', '127.9.9.9:1', '[::1]:1', 'localhost:1', 'unix:///x']) expect(() => requireSafe(parseListen(text), false)).not.toThrow();
  for (const text of ['0.0.0.0:1', ':1', '10.0.0.1:1', '[::]:1', 'example.org:1', '[2001:db8::1]:1']) {
    expect(() => requireSafe(parseListen(text), false)).toThrow(/without TLS/);
    expect(() => requireSafe(parseListen(text), true)).not.toThrow();
  }
});

test('the sample configurations are ones', () => {
  expect(readEndpointConfig('etc/endpoint.json').policy.allowBinds).toBe('/srv');
  expect(readAgentConfig('etc/agent.json').prefix).toBe('n1');
  expect(readEndpointConfig('etc/endpoint-cluster.json').store?.zookeeper.path).toBe('/cetus/db');
  expect(readSitterConfig('etc/sitter.json').id).toBe('db-1');
});

test('an endpoint has one store: a Postgres or a cluster, not both and not none; a list of servers is one', () => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-config-'));
  const file = path.join(dir, 'endpoint.json');
  const [one, cluster] = [readEndpointConfig('etc/endpoint.json'), readEndpointConfig('etc/endpoint-cluster.json')];
  const refused = (config: object): void => {
    fs.writeFileSync(file, JSON.stringify(config));
    expect(() => readEndpointConfig(file)).toThrow(expect.objectContaining({kind: 'invalid'}));
  };
  refused({...one, store: cluster.store});
  refused({...one, postgresUrl: undefined});
  for (const servers of ['', 'a', 'a:1,', 'a:1 b:2', 'a:1/x']) refused({...cluster, store: {...cluster.store, zookeeper: {servers, path: '/cetus'}}});
  for (const at of ['', 'cetus', '/', '/cetus/']) refused({...cluster, store: {...cluster.store, zookeeper: {servers: 'a:1', path: at}}});
  fs.rmSync(dir, {recursive: true});
});

test('an unknown setting is refused by name', () => {
  const file = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-config-')), 'agent.json');
  fs.writeFileSync(file, JSON.stringify({...readAgentConfig('etc/agent.json'), colour: 'red'}));
  expect(() => readAgentConfig(file)).toThrow(/must NOT have additional properties \(colour\)/);
  fs.rmSync(path.dirname(file), {recursive: true});
});
