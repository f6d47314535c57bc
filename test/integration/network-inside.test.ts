/** Work in a namespace with no process in it, against the kernel. */
import {execFileSync} from 'node:child_process';
import {readdirSync, readlinkSync} from 'node:fs';
import {type Inside, Namespaces} from '../../lib/agent/network/inside';

const tag = `i${process.pid.toString(36).slice(-4)}`;
const ip = (...args: string[]): string => execFileSync('ip', args, {encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'], env: {...process.env, PATH: `${process.env['PATH']}:/usr/sbin:/sbin`}});
const descriptors = (): number => readdirSync('/proc/self/fd').length;

describe('work inside a network namespace', () => {
  const names = [`${tag}a`, `${tag}b`];
  let namespaces: Namespaces;
  let opened: Inside[];
  beforeAll(() => {
    for (const name of names) ip('netns', 'add', name);
    namespaces = new Namespaces();
    opened = names.map(name => namespaces.open(`/run/netns/${name}`));
  });
  afterAll(async () => {
    for (const one of opened) one.close();
    await namespaces.close();
    for (const name of names) ip('netns', 'del', name);
  });

  test('this process stays where it is; each socket works in its own namespace; the far ends of pairs come home', async () => {
    const home = readlinkSync('/proc/thread-self/ns/net');
    await Promise.all(opened.map((inside, n) => inside.run([
      {do: 'set', name: 'lo'}, {do: 'pair', name: 'eth0', peer: `v${tag}${n}`}, {do: 'set', name: 'eth0', mac: `02:42:0a:00:00:0${n + 2}`, mtu: 1400},
      {do: 'address', name: 'eth0', address: `10.0.0.${n + 2}`, prefixLength: 24}, {do: 'defaultRoute', name: 'eth0', gateway: '10.0.0.1'},
    ])));
    expect(readlinkSync('/proc/thread-self/ns/net')).toBe(home);
    names.forEach((name, n) => {
      const [link] = JSON.parse(ip('-n', name, '-j', 'addr', 'show', 'dev', 'eth0')) as {address: string; mtu: number; flags: string[]; addr_info: object[]}[];
      expect(link).toMatchObject({address: `02:42:0a:00:00:0${n + 2}`, mtu: 1400, addr_info: [{family: 'inet', local: `10.0.0.${n + 2}`, prefixlen: 24, scope: 'global'}]});
      expect(link!.flags).toContain('UP');
      expect(ip('-n', name, 'addr', 'show', 'dev', 'lo')).toContain('127.0.0.1/8');
      expect(ip('link', 'show', 'dev', `v${tag}${n}`)).toContain(`v${tag}${n}`);
    });
    // A route wants the link of its gateway, which wants the other end up.
    for (const n of [0, 1]) ip('link', 'set', `v${tag}${n}`, 'up');
    await opened[0]!.run([{do: 'defaultRoute', name: 'eth0', gateway: '10.0.0.7'}]);
    expect(ip('-n', names[0]!, 'route', 'show', 'default')).toContain('via 10.0.0.7 dev eth0');
  });

  test('a refusal names the command and the kernel\'s reason; the commands around it are done', async () => {
    await expect(opened[1]!.run([{do: 'remove', name: 'nowhere'}, {do: 'pair', name: 'eth1', peer: `v${tag}2`}, {do: 'address', name: 'eth1', address: '10.0.0.3', prefixLength: 24}, {do: 'address', name: 'eth1', address: '10.0.0.3', prefixLength: 24}]))
      .rejects.toThrow(/remove nowhere: ENODEV.*address eth1 10\.0\.0\.3 24: EEXIST/);
    expect(ip('-n', names[1]!, 'addr', 'show', 'dev', 'eth1')).toContain('10.0.0.3/24');
    await opened[1]!.run([{do: 'remove', name: 'eth1'}]);
    await expect(opened[1]!.run([{do: 'address', name: 'eth1', address: '10.0.0.3', prefixLength: 24}])).rejects.toThrow(/find eth1: ENODEV/);
  });

  test('no namespace, and what is none, are refused, and leave no descriptor open', () => {
    const before = descriptors();
    for (const path of [`/run/netns/${tag}none`, '/dev/null']) expect(() => namespaces.open(path)).toThrow(/open network namespace/);
    expect(descriptors()).toBe(before);
  });
});
