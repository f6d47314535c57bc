import {execFileSync} from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {placeRunc, withStepNetwork} from '../../../lib/agent/build/step-network';

describe('the query that an engine gets', () => {
  const asked = (request: string): URLSearchParams => new URLSearchParams(withStepNetwork(request).split('?')[1]);
  it.each(['/build', '/build?t=a', '/build?networkmode=default&t=a', '/build?networkmode=bridge'])('of %s runs its steps where runc puts them', (request) => {
    expect(asked(request).get('networkmode')).toBe('host');
    expect(asked(request).getAll('extrahosts').join()).not.toContain('network-of-the-node');
  });
  it('asks for the node\'s network where the client does, and for none where it wants none', () => {
    expect(asked('/build?networkmode=host&extrahosts=a:1.2.3.4').getAll('extrahosts')).toEqual(['a:1.2.3.4', 'network-of-the-node.cetus.internal:127.0.0.1']);
    expect(withStepNetwork('/build?networkmode=none&t=a')).toBe('/build?networkmode=none&t=a');
  });
  it('is the client\'s own otherwise', () => {
    expect(asked('/build?version=2&buildargs=%7B%22a%22%3A%22b%26c%22%7D&t=x&t=y').toString()).toBe('version=2&buildargs=%7B%22a%22%3A%22b%26c%22%7D&t=x&t=y&networkmode=host');
    expect(withStepNetwork('/build/prune?all=1')).toBe('/build/prune?all=1');
  });
});

describe('runc, as an engine finds it', () => {
  let dir: string;
  beforeEach(() => { dir = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-unit-runc-')); });
  afterEach(() => fs.rmSync(dir, {recursive: true, force: true}));

  /** The namespaces of a step's configuration when the real runc gets it. */
  function started(namespaces: object[], {allowed = true, hosts = '127.0.0.1 localhost', env = ''}: {allowed?: boolean; hosts?: string; env?: string} = {}): unknown {
    placeRunc(path.join(dir, 'bin'), {runc: '/bin/true', netns: '/own', nodeNetns: '/x/netns/default', nodeNetworkAllowed: allowed});
    fs.writeFileSync(path.join(dir, 'hosts'), hosts);
    const config = {process: {env: [env]}, mounts: [{destination: '/etc/hosts', type: 'bind', source: path.join(dir, 'hosts')}], linux: {namespaces}};
    fs.writeFileSync(path.join(dir, 'config.json'), JSON.stringify(config));
    execFileSync(path.join(dir, 'bin', 'runc'), ['--root', '/r', 'create', '--bundle', dir, '--pid-file', 'p', 'id']);
    return (JSON.parse(fs.readFileSync(path.join(dir, 'config.json'), 'utf8')) as typeof config).linux.namespaces;
  }
  const pid = {type: 'pid'};
  const own = {type: 'network', path: '/own'};
  const node = {type: 'network', path: '/x/netns/default'};
  const asked = {hosts: '127.0.0.1\tnetwork-of-the-node.cetus.internal'};

  it('runs steps on the host\'s network on that of the builds', () => {
    expect(started([pid, node])).toEqual([pid, own]);
    expect(started([pid])).toEqual([own, pid]);
  });
  it('whatever a build writes into its environment', () => {
    for (const env of ['"type":"network"', '{"type":"network","path":"/own"}', '"namespaces":[']) {
      expect(started([pid, node], {env})).toEqual([pid, own]);
      expect(started([pid], {env})).toEqual([own, pid]);
    }
  });
  it('leaves steps without a network, or on a bridge, where they are', () => {
    expect(started([{type: 'network'}])).toEqual([{type: 'network'}]);
    expect(started([{type: 'network', path: '/x/netns/1'}])).toEqual([{type: 'network', path: '/x/netns/1'}]);
  });
  it('gives the node\'s network to who asks for it, where that is allowed', () => {
    expect(started([pid, node], asked)).toEqual([pid, node]);
    expect(started([pid], asked)).toEqual([pid]);
    expect(started([pid, node], {...asked, allowed: false})).toEqual([pid, own]);
    expect(started([pid], {...asked, allowed: false})).toEqual([own, pid]);
  });
});
