/** Images that are made here and taken elsewhere: commit, import, push, pull of all tags and login, with the stock client. */
import fs from 'node:fs';
import http from 'node:http';
import type {AddressInfo} from 'node:net';
import path from 'node:path';
import {gzipSync} from 'node:zlib';
import {tarOf} from '../harness/images';
import {JILL, startRegistry, type TestRegistry} from '../harness/registry';
import {whereKept} from '../harness/secrets';
import {datacenterWithBusybox, removeContainersAfterEach} from '../harness/suite';

let registry: TestRegistry;
const dc = datacenterWithBusybox({
  prepare: async () => { registry = await startRegistry(); },
  cleanUp: async () => registry?.stop(),
});
removeContainersAfterEach(dc);

const config = async (image: string): Promise<Record<string, unknown>> => JSON.parse(await dc.ok(['image', 'inspect', '-f', '{{json .Config}}', image])) as Record<string, unknown>;

describe('commit', () => {
  test('what a container has changed is an image, while it runs and when it has ended', async () => {
    await dc.ok(['run', '-d', '--name', 'writer', 'busybox', 'sh', '-c', 'mkdir /made; echo here > /made/file; rm /bin/rev; ln -s file /made/link; trap exit TERM; sleep 1000 & wait']);
    await dc.ok(['exec', 'writer', 'sh', '-c', 'until [ -L /made/link ]; do usleep 10000; done']);
    const id = await dc.ok(['commit', '-m', 'as it stands', '-a', 'jill', '-c', 'CMD ["cat", "/made/link"]', '-c', 'LABEL made="by commit"', '-c', 'EXPOSE 80', 'writer', 'made:1']);
    expect(id).toMatch(/^sha256:[0-9a-f]{64}$/);
    expect(await dc.ok(['inspect', '-f', '{{.State.Status}}', 'writer'])).toBe('running');
    expect(await dc.ok(['run', '--rm', 'made:1'])).toBe('here');
    expect((await dc.docker(['run', '--rm', 'made:1', 'ls', '/bin/rev'])).stderr).toMatch(/No such file/);
    expect(await config('made:1')).toMatchObject({Cmd: ['cat', '/made/link'], Labels: {made: 'by commit'}, ExposedPorts: {'80/tcp': {}}});
    expect(await dc.ok(['image', 'inspect', '-f', '{{.Author}} {{.Comment}} {{len .RootFS.Layers}} {{.Parent}}', 'made:1'])).toBe(`jill as it stands 2 ${await dc.ok(['inspect', '-f', '{{.Id}}', 'busybox'])}`);
    expect((await dc.ok(['history', '--format', '{{.Comment}}', 'made:1'])).split('\n')[0]).toBe('as it stands');
    await dc.ok(['stop', '-t', '5', 'writer']);
    await dc.ok(['commit', 'writer', 'made:2']);
    expect(await dc.ok(['run', '--rm', 'made:2', 'cat', '/made/file'])).toBe('here');
    expect((await dc.docker(['image', 'inspect', '--platform', 'linux/s390x', 'made:2'])).stderr).toMatch(/does not match the specified platform \(linux\/s390x\)/);
    const events = await dc.ok(['events', '--since', '5m', '--until', String(Date.now() / 1000), '--filter', 'container=writer', '--format', '{{.Action}}']);
    expect(events.split('\n').filter((e) => /pause|commit/.test(e))).toEqual(['pause', 'unpause', 'commit', 'commit']);
  });

  test('of one that was never started, without a name; and what cannot be', async () => {
    await dc.ok(['create', '--name', 'idle', 'busybox', 'true']);
    const id = await dc.ok(['commit', 'idle']);
    // Nothing was changed: no layer of its own, and a step of the history that says so.
    expect(await dc.ok(['image', 'inspect', '-f', '{{len .RootFS.Layers}} {{len .RepoTags}}', id])).toBe('1 0');
    expect(await dc.ok(['history', '-q', '--no-trunc', id])).toBe(`${id}\n${await dc.ok(['inspect', '-f', '{{.Id}}', 'busybox'])}`);
    await dc.ok(['rmi', id]);
    expect((await dc.docker(['commit', '-c', 'RUN x', 'idle'])).stderr).toMatch(/run is not a valid change command/);
    expect((await dc.docker(['commit', 'nobody'])).stderr).toMatch(/No such container: nobody/);
  });
});

describe('import', () => {
  test('a tar from stdin and one from an address are images that run', async () => {
    const tar = await tarOf([{name: 'bin', type: 'directory'}, {name: 'bin/busybox', content: fs.readFileSync('/bin/busybox'), mode: 0o755}, {name: 'here', content: 'from a tar\n'}]);
    const id = await dc.ok(['import', '-m', 'by hand', '-c', 'ENTRYPOINT ["/bin/busybox"]', '-c', 'CMD ["cat", "/here"]', '-', 'imported:1'], {input: gzipSync(tar)});
    expect(id).toMatch(/^sha256:[0-9a-f]{64}$/);
    expect(await dc.ok(['run', '--rm', 'imported:1'])).toBe('from a tar');
    expect(await dc.ok(['history', '--format', '{{.Comment}}', 'imported:1'])).toBe('by hand');
    const server = http.createServer((_req, res) => res.end(tar));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}/root.tar`;
    try {
      const printed = await dc.ok(['import', address, 'imported:2']);
      expect(printed).toContain(`Downloading from ${address}`);
      expect(await dc.ok(['run', '--rm', 'imported:2', '/bin/busybox', 'cat', '/here'])).toBe('from a tar');
      expect(await dc.ok(['image', 'inspect', '-f', '{{.Comment}}', 'imported:2'])).toBe(`Imported from ${address}`);
    } finally {
      server.close();
    }
    // A small one: a proxy between them cuts off the client that still sends when it passes the refusal on.
    const small = await tarOf([{name: 'here', content: 'small'}]);
    expect((await dc.docker(['import', '-c', 'RUN x', '-'], {input: small})).stderr).toMatch(/run is not a valid change command/);
    expect((await dc.docker(['import', '-'], {input: Buffer.alloc(5000, 0x55)})).stderr).toMatch(/invalid tar header|failed to register layer/);
    await dc.ok(['rmi', 'imported:1', 'imported:2']);
  });
});

describe('push', () => {
  test('what was made here is pulled as the same, by tag and by digest', async () => {
    await dc.ok(['create', '--name', 'source', 'busybox', 'true']);
    const name = `${registry.host}/made/app`;
    await dc.ok(['commit', '-c', 'CMD ["echo", "pushed"]', 'source', `${name}:1`]);
    await dc.ok(['tag', `${name}:1`, `${name}:2`]);
    const id = await dc.ok(['inspect', '-f', '{{.Id}}', `${name}:1`]);
    const printed = await dc.ok(['push', `${name}:1`]);
    expect(printed).toContain(`The push refers to repository [${name}]`);
    expect(printed).toMatch(/^[0-9a-f]{12}: Pushed$/m);
    const digest = /^1: digest: (sha256:[0-9a-f]{64}) size: \d+$/m.exec(printed)?.[1];
    expect(await dc.ok(['inspect', '-f', '{{json .RepoDigests}}', id])).toBe(JSON.stringify([`${name}@${digest}`]));
    const all = await dc.ok(['push', '--all-tags', name]);
    expect(all).toMatch(/Layer already exists/);
    expect(all).toContain(`2: digest: ${digest}`);
    const pulled = await dc.ok(['pull', '--all-tags', name]);
    // In whatever order the registry tells them.
    for (const line of ['1: Pulling from made/app', '2: Pulling from made/app', `Status: Downloaded newer image for ${name}`]) expect(pulled.split('\n')).toContain(line);
    await dc.ok(['rm', 'source']);
    await dc.ok(['rmi', `${name}:1`, `${name}:2`]);
    expect(await dc.ok(['run', '--rm', `${name}@${digest}`])).toBe('pushed');
    expect(await dc.ok(['inspect', '-f', '{{.Id}}', `${name}@${digest}`])).toBe(id);
    await dc.ok(['tag', `${name}@${digest}`, `${registry.host}/other/app:1`]);
    expect(await dc.ok(['push', `${registry.host}/other/app:1`])).toMatch(/Mounted from made\/app/);
    expect(await dc.ok(['events', '--since', '5m', '--until', String(Date.now() / 1000), '--filter', 'event=push', '--format', '{{.Actor.ID}}'])).toBe(`${name}:1\n${name}\n${registry.host}/other/app:1`);
  });

  test.each([
    ['nothere:1', /An image does not exist locally with the tag: nothere/],
    ['busybox:nosuch', /tag does not exist: busybox:nosuch/],
    [`busybox@sha256:${'0'.repeat(64)}`, /cannot push a digest reference/],
  ])('%s', async (name, message) => {
    expect((await dc.docker(['push', name])).stderr).toMatch(message);
  });
});

describe('search', () => {
  test('asks a registry of the first version, and filters what it says', async () => {
    const asked: string[] = [];
    const found = [{name: 'team/box', description: 'a box', star_count: 7, is_official: false, is_automated: false}, {name: 'team/other', description: 'another', star_count: 1, is_official: false, is_automated: false}];
    const server = http.createServer((req, res) => {
      asked.push(req.url!);
      res.setHeader('Content-Type', 'application/json').end(req.url!.startsWith('/v1/search?') ? JSON.stringify({query: 'box', num_results: found.length, results: found}) : 'true');
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    try {
      const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
      const printed = await dc.ok(['search', '--limit', '9', '--filter', 'stars=3', '--format', '{{.Name}} {{.Description}} {{.StarCount}}', `${host}/box`]);
      expect(printed).toBe('team/box a box 7');
      expect(asked.at(-1)).toBe('/v1/search?q=box&n=9');
    } finally {
      server.close();
    }
  });
});

describe('a registry that asks for a password', () => {
  let locked: TestRegistry;
  beforeAll(async () => { locked = await startRegistry({htpasswd: JILL.htpasswd}); });
  afterAll(() => locked?.stop());

  test('login, push, pull, and no word of the password is kept', async () => {
    const env = {DOCKER_CONFIG: path.join(dc.dataDir, 'client-of-jill')};
    const name = `${locked.host}/jill/box:1`;
    const login = (password: string) => dc.docker(['login', '-u', JILL.name, '--password-stdin', locked.host], {env, input: password});
    const wrong = await login('wrong-guess-78');
    expect(wrong).toMatchObject({status: 1, stderr: expect.stringContaining(`login attempt to http://${locked.host}/v2/ failed with status: 401 Unauthorized`) as string});
    await dc.ok(['tag', 'busybox', name]);
    expect((await dc.docker(['push', name], {env})).stderr).toMatch(/no basic auth credentials/);
    expect((await login(JILL.password)).stdout).toContain('Login Succeeded');
    expect(await dc.ok(['push', name], {env})).toMatch(/^1: digest: sha256:/m);
    expect(await dc.ok(['pull', '-q', name], {env})).toBe(name);
    expect((await fetch(`${dc.host.replace('tcp:', 'http:')}/distribution/${name}/json`)).status).toBe(401);
    const auth = Buffer.from(JSON.stringify({username: JILL.name, password: JILL.password})).toString('base64url');
    const remote = await fetch(`${dc.host.replace('tcp:', 'http:')}/distribution/${name}/json`, {headers: {'X-Registry-Auth': auth}});
    expect(await remote.json()).toMatchObject({Descriptor: {digest: expect.stringMatching(/^sha256:/) as string}, Platforms: [{os: 'linux'}]});
    await dc.ok(['rmi', name]);
    expect(await whereKept(dc, [JILL.password, 'wrong-guess-78', Buffer.from(`jill:${JILL.password}`).toString('base64')])).toEqual([]);
  });
});
