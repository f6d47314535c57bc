/** What each version of the API has that the one before had not, one row a difference: the last version without it, and the first with it. */
import {fakeContainer} from './fake-datacenter';
import {closeWorlds, type World, world} from './world';

afterEach(closeWorlds);

type Json = Record<string, unknown>;
const at = (value: unknown, path: string): unknown => path.split('.').reduce<unknown>((v, key) => (v as Json | undefined)?.[key], value);

async function ask({url}: World, method: string, path: string, body?: unknown): Promise<{status: number; body: Json; headers: Headers}> {
  const got = await fetch(`${url}${path}`, {method, ...(body === undefined ? {} : {headers: {'Content-Type': 'application/json'}, body: JSON.stringify(body)})});
  const text = await got.text();
  return {status: got.status, body: (/^\{.*\}\s*$/.test(text) && !text.trim().includes('\n') ? JSON.parse(text) : {}) as Json, headers: got.headers};
}

const mount = (over: Json): Json => ({HostConfig: {Mounts: [{Target: '/m', ...over}]}});
const bind = (BindOptions: Json): Json => mount({Type: 'bind', Source: '/s', BindOptions});

describe('what create makes of a body', () => {
  it.each<[first: number, given: Json, path: string, before: unknown, since: unknown]>([
    [40, {}, 'HostConfig.IpcMode', 'shareable', undefined],
    [40, {HostConfig: {IpcMode: 'private'}}, 'HostConfig.IpcMode', 'private', 'private'],
    [40, bind({NonRecursive: true}), 'HostConfig.Mounts.0.BindOptions.NonRecursive', undefined, true],
    [42, bind({CreateMountpoint: true}), 'HostConfig.Mounts.0.BindOptions.CreateMountpoint', undefined, true],
    [43, {HostConfig: {Annotations: {a: 'b'}}}, 'HostConfig.Annotations.a', undefined, 'b'],
    [44, {Healthcheck: {StartInterval: 5e9}}, 'Healthcheck.StartInterval', undefined, 5e9],
    [44, bind({ReadOnlyNonRecursive: true}), 'HostConfig.Mounts.0.BindOptions.ReadOnlyNonRecursive', undefined, true],
    [44, bind({ReadOnlyForceRecursive: true}), 'HostConfig.Mounts.0.BindOptions.ReadOnlyForceRecursive', undefined, true],
    [44, {NetworkingConfig: {EndpointsConfig: {n: {MacAddress: '02:42:00:00:00:01'}}}}, 'NetworkingConfig.EndpointsConfig.n.MacAddress', undefined, '02:42:00:00:00:01'],
    [45, mount({Type: 'volume', VolumeOptions: {Subpath: 'x'}}), 'HostConfig.Mounts.0.VolumeOptions.Subpath', undefined, 'x'],
    [46, mount({Type: 'tmpfs', TmpfsOptions: {Options: [['exec']]}}), 'HostConfig.Mounts.0.TmpfsOptions.Options.0.0', undefined, 'exec'],
  ])('1.%i: %j: %s', async (first, given, path, before, since) => {
    const here = await world();
    const seen: unknown[] = [];
    for (const minor of [first - 1, first]) {
      expect((await ask(here, 'POST', `/v1.${minor}/containers/create`, {Image: 'x', ...given})).status).toBe(201);
      seen.push(at(here.fake.calls.at(-1)!.args[1], path));
    }
    expect(seen).toEqual([before, since]);
  });

  it.each<[first: number, given: Json, before: string[], since: string[]]>([
    [42, {HostConfig: {KernelMemory: 1e7}}, ['Your kernel does not support kernel memory limit capabilities or the cgroup is not mounted. Limitation discarded.'], []],
    [44, {MacAddress: '02:42:00:00:00:01'}, [], ['The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead.']],
  ])('1.%i: %j: the warnings', async (first, given, before, since) => {
    const here = await world();
    const warnings = async (minor: number): Promise<unknown> => (await ask(here, 'POST', `/v1.${minor}/containers/create`, {Image: 'x', ...given})).body.Warnings;
    expect([await warnings(first - 1), await warnings(first)]).toEqual([before, since]);
  });

  it('1.44: several networks at once', async () => {
    const here = await world();
    const body = {Image: 'x', NetworkingConfig: {EndpointsConfig: {a: {}, b: {}}}};
    expect([(await ask(here, 'POST', '/v1.43/containers/create', body)).status, (await ask(here, 'POST', '/v1.44/containers/create', body)).status]).toEqual([400, 201]);
  });
});

describe('what a verb is told', () => {
  it.each<[first: number, what: string, method: string, path: string, body: Json | undefined, verb: string, before: object, since: object]>([
    [41, 'platform of create', 'POST', '/containers/create?platform=linux/arm64', {Image: 'x'}, 'create', {1: {Image: 'x'}, length: 2}, {2: 'linux/arm64'}],
    [41, 'one-shot of stats', 'GET', '/containers/c/stats?stream=0&one-shot=1', undefined, 'stats', {1: {oneShot: false}}, {1: {oneShot: true}}],
    [42, 'signal of stop', 'POST', '/containers/c/stop?signal=SIGINT', undefined, 'stop', {1: {}}, {1: {signal: 'SIGINT'}}],
    [42, 'signal of restart', 'POST', '/containers/c/restart?signal=SIGINT', undefined, 'restart', {1: {}}, {1: {signal: 'SIGINT'}}],
    [42, 'ConsoleSize of exec', 'POST', '/containers/c/exec', {Cmd: ['x'], ConsoleSize: [5, 6]}, 'exec.create', {1: {Cmd: ['x']}}, {1: {ConsoleSize: [5, 6]}}],
    [42, 'anonymous volumes alone are pruned', 'POST', '/volumes/prune', undefined, 'volume.prune', {0: {all: ['true']}}, {0: {}}],
    [47, 'EnableIPv4 of a network', 'POST', '/networks/create', {Name: 'n', EnableIPv4: true}, 'network.create', {0: {Name: 'n'}}, {0: {EnableIPv4: true}}],
  ])('1.%i: %s', async (first, _what, method, path, body, verb, before, since) => {
    const here = await world();
    here.fake.add(fakeContainer({name: 'c'}));
    const told = async (minor: number): Promise<unknown> => {
      await ask(here, method, `/v1.${minor}${path}`, body);
      return {...here.fake.calls.filter((call) => call.verb === verb).at(-1)!.args};
    };
    const {length: _length, ...expected} = before as {length?: number};
    expect(await told(first - 1)).toMatchObject(expected);
    const old = JSON.stringify(here.fake.calls.at(-1));
    expect(await told(first)).toMatchObject(since);
    expect(JSON.stringify(here.fake.calls.at(-1))).not.toBe(old);
  });
});

describe('what an answer shows', () => {
  it.each<[first: number, path: string, field: string, before: unknown, since: unknown]>([
    [25, '/info', 'SecurityOptions', ['seccomp'], ['name=seccomp,profile=builtin']],
    [25, '/info', 'ExecutionDriver', '<not supported>', undefined],
    [49, '/info', 'RuncCommit.Expected', '1.1.5', undefined],
    [49, '/info', 'InitCommit.Expected', '0.19.0', undefined],
    [49, '/info', 'ContainerdCommit.Expected', '1.6.20', undefined],
    [50, '/info', 'BridgeNfIptables', true, undefined],
    [50, '/info', 'BridgeNfIp6tables', true, undefined],
    [45, '/images/busybox/json', 'Container', '', undefined],
    [44, '/images/busybox/json', 'VirtualSize', 4000, undefined],
    [48, '/images/busybox/json', 'Descriptor.size', undefined, 500],
    [42, '/system/df?type=volume', 'Volumes.length', 0, 0],
    [42, '/system/df?type=volume', 'Images.length', 1, undefined],
  ])('1.%i: %s: %s', async (first, path, field, before, since) => {
    const here = await world();
    const shown = async (minor: number): Promise<unknown> => at((await ask(here, 'GET', `/v1.${minor}${path}`)).body, field);
    expect([await shown(first - 1), await shown(first)]).toEqual([before, since]);
  });

  it.each([[42, 'logs?stdout=1', 'application/vnd.docker.raw-stream', 'application/vnd.docker.multiplexed-stream']] as const)('1.%i: the type of %s', async (first, path, before, since) => {
    const here = await world();
    here.fake.add(fakeContainer({name: 'c'}));
    const type = async (minor: number): Promise<unknown> => (await ask(here, 'GET', `/v1.${minor}/containers/c/${path}`)).headers.get('content-type');
    expect([await type(first - 1), await type(first)]).toEqual([before, since]);
  });

  it('1.30: a wait may be for something', async () => {
    const here = await world();
    here.fake.add(fakeContainer({name: 'c', status: 'exited'}));
    expect([(await ask(here, 'POST', '/v1.29/containers/c/wait?condition=x')).status, (await ask(here, 'POST', '/v1.30/containers/c/wait?condition=x')).status]).toEqual([200, 400]);
  });
});
