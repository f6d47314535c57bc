/** pull, load, save, tag, history, rmi with the stock client against the distribution's registry. */
import {createHash} from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import {run} from '../harness/cetus';
import {busyboxArchive} from '../harness/busybox';
import {buildImage, buildLayer, busyboxLayer, ociArchive, pushImage, tarOf, type LayerEntry} from '../harness/images';
import {startRegistry, type TestRegistry} from '../harness/registry';
import {whereKept} from '../harness/secrets';
import {datacenterWithBusybox} from '../harness/suite';

let registry: TestRegistry;
const dc = datacenterWithBusybox({
  prepare: async () => { registry = await startRegistry(); },
  cleanUp: async () => registry?.stop(),
});

test('load, images, history, tag, rmi', async () => {
  expect(await dc.ok(['images', '--format', '{{.Repository}}:{{.Tag}}'])).toBe('busybox:latest');
  expect(await dc.ok(['history', '--format', '{{.CreatedBy}}', 'busybox'])).toBe('ADD layer 0 /');
  await dc.ok(['tag', 'busybox', 'mine:v1']);
  const id = await dc.ok(['inspect', '-f', '{{.Id}}', 'mine:v1']);
  expect(await dc.ok(['inspect', '-f', '{{.Id}}', 'busybox'])).toBe(id);
  expect((await dc.docker(['rmi', id])).stderr).toMatch(/image is referenced in multiple repositories/);
  expect(await dc.ok(['rmi', 'mine:v1'])).toBe('Untagged: mine:v1');
  expect((await dc.docker(['inspect', 'mine:v1'])).stderr).toMatch(/No such object: mine:v1/i);
});

test('save and load give the same image back, digests and all', async () => {
  const first = path.join(dc.dataDir, 'first.tar');
  await dc.ok(['save', '-o', first, 'busybox']);
  const id = await dc.ok(['inspect', '-f', '{{.Id}}', 'busybox']);
  await dc.ok(['rmi', 'busybox']);
  expect((await dc.docker(['run', '--rm', '--pull', 'never', 'busybox', 'true'])).status).toBe(125);
  expect(await dc.ok(['load', '-i', first])).toBe('Loaded image: busybox:latest');
  expect(await dc.ok(['inspect', '-f', '{{.Id}}', 'busybox'])).toBe(id);
  const second = path.join(dc.dataDir, 'second.tar');
  await dc.ok(['save', '-o', second, 'busybox']);
  const blobs = async (file: string): Promise<string[]> => (await run('tar', ['tf', file])).stdout.split('\n').filter((n) => n.startsWith('blobs/sha256/') && n.length > 70).sort();
  expect(await blobs(second)).toEqual(await blobs(first));
  const dir = fs.mkdtempSync(path.join(dc.dataDir, 'unpacked-'));
  await run('tar', ['xf', second, '-C', dir]);
  for (const blob of await blobs(second)) expect(createHash('sha256').update(fs.readFileSync(path.join(dir, blob))).digest('hex')).toBe(path.basename(blob));
});

test('an image in use is not removed', async () => {
  await dc.ok(['create', '--name', 'user', 'busybox', 'true']);
  expect((await dc.docker(['rmi', 'busybox'])).stderr).toMatch(/unable to remove repository reference "busybox" \(must force\) - container [0-9a-f]{12} is using its referenced image [0-9a-f]{12}/);
  await dc.ok(['rm', 'user']);
});

test('pull from a registry, and what it says when it cannot', async () => {
  await pushImage(registry.url, 'tools/box', ['v1'], buildImage([await busyboxLayer()]));
  const reference = `${registry.host}/tools/box:v1`;
  const printed = await dc.ok(['pull', reference]);
  expect(printed).toMatch(/v1: Pulling from tools\/box/);
  expect(printed).toMatch(/Digest: sha256:[0-9a-f]{64}/);
  expect(printed).toMatch(/Status: Downloaded newer image for /);
  expect(await dc.ok(['pull', reference])).toMatch(/Status: Image is up to date for /);
  expect(await dc.ok(['run', '--rm', reference, 'echo', 'from the registry'])).toBe('from the registry');
  const digest = await dc.ok(['inspect', '-f', '{{index .RepoDigests 0}}', reference]);
  expect(digest).toMatch(/tools\/box@sha256:[0-9a-f]{64}$/);
  await dc.ok(['rmi', reference]);
  await dc.ok(['pull', digest]);
  expect(await dc.ok(['run', '--rm', digest, 'echo', 'by digest'])).toBe('by digest');
  const missing = await dc.docker(['pull', `${registry.host}/tools/box:nosuch`]);
  expect(missing.status).toBe(1);
  expect(missing.stderr).toMatch(/manifest for .*tools\/box:nosuch not found: manifest unknown/);
  expect((await dc.docker(['pull', 'Bad:Reference:Here'])).stderr).toMatch(/invalid reference format/);
});

test('a truncated archive is refused and leaves nothing', async () => {
  const whole = fs.readFileSync(await busyboxArchive());
  const before = await dc.ok(['images', '-aq']);
  const done = await dc.docker(['load'], {input: whole.subarray(0, whole.length / 2)});
  expect(done.status).toBe(1);
  expect(done.stderr).toMatch(/unexpected end|unexpected EOF|truncated/i);
  expect(await dc.ok(['images', '-aq'])).toBe(before);
});

describe('a registry that asks for tokens', () => {
  const users = {jill: 'p4ssw0rd-of-jill', jack: 'p4ssw0rd-of-jack'};
  let locked: TestRegistry;
  beforeAll(async () => {
    locked = await startRegistry({users});
    const image = buildImage([await busyboxLayer()], {config: {Labels: {locked: 'yes'}}});
    for (const repository of ['jill/box', 'public/box']) await pushImage(locked.url, repository, ['v1'], image, locked.pushHeaders(repository));
  }, 240_000);
  afterAll(() => locked?.stop());

  /** What `docker login` leaves in a client's configuration. */
  const loggedIn = (name: string, password: string): {env: NodeJS.ProcessEnv} => {
    const dir = fs.mkdtempSync(path.join(dc.dataDir, 'client-'));
    fs.writeFileSync(path.join(dir, 'config.json'), JSON.stringify({auths: {[locked.host]: {auth: Buffer.from(`${name}:${password}`).toString('base64')}}}));
    return {env: {DOCKER_CONFIG: dir}};
  };

  test('what is public needs no name', async () => {
    expect(await dc.ok(['pull', '-q', `${locked.host}/public/box:v1`])).toBe(`${locked.host}/public/box:v1`);
    expect(locked.tokenRequests.at(-1)).toMatchObject({grant: 'anonymous', scope: 'repository:public/box:pull'});
    await dc.ok(['rmi', `${locked.host}/public/box:v1`]);
  });

  test('what is private needs its own name and password, and no word of them is kept', async () => {
    const reference = `${locked.host}/jill/box:v1`;
    for (const who of [{}, loggedIn('jill', 'wrong-guess-77'), loggedIn('jack', users.jack)]) {
      const refused = await dc.docker(['pull', reference], who);
      expect(refused.status).toBe(1);
      expect(refused.stderr).toMatch(/pull access denied|unauthorized: incorrect username or password/);
      // At a 401 the client would ask for a name and a password, and wait.
      expect(refused.stdout + refused.stderr).not.toMatch(/Username/);
      expect(refused.stderr).not.toMatch(/wrong-guess-77|p4ssw0rd/);
    }
    await dc.ok(['pull', reference], loggedIn('jill', users.jill));
    expect(locked.tokenRequests.at(-1)).toMatchObject({account: 'jill', scope: 'repository:jill/box:pull'});
    expect(await dc.ok(['run', '--rm', '--pull', 'never', reference, 'echo', 'mine'])).toBe('mine');
    // Having it does not open the registry to the next client.
    expect((await dc.docker(['pull', reference])).stderr).toMatch(/denied|unauthorized/i);
    await dc.ok(['rmi', reference]);
    const secrets = Object.values(users).concat('wrong-guess-77').flatMap((s) => [s, Buffer.from(`jill:${s}`).toString('base64'), Buffer.from(`jack:${s}`).toString('base64')]);
    expect(await whereKept(dc, secrets)).toEqual([]);
  });
});

describe('rmi', () => {
  test('takes the names one by one, the image with the last, and by id only with force where there are several', async () => {
    const id = await imported('several:a', {label: 'several'});
    await dc.ok(['tag', 'several:a', 'several:b']);
    await dc.ok(['tag', 'several:a', 'other:c']);
    expect((await dc.docker(['rmi', id])).stderr).toMatch(/conflict: unable to delete [0-9a-f]{12} \(must be forced\) - image is referenced in multiple repositories/);
    expect((await dc.ok(['rmi', 'several:a'])).split('\n')).toEqual(['Untagged: several:a']);
    const forced = (await dc.ok(['rmi', '-f', id])).split('\n');
    expect(forced.filter((l) => l.startsWith('Untagged')).sort()).toEqual(['Untagged: other:c', 'Untagged: several:b']);
    expect(forced.filter((l) => l.startsWith('Deleted: sha256:')).length).toBeGreaterThanOrEqual(1);
    expect((await dc.docker(['rmi', id])).stderr).toMatch(/No such image/);
  });

  test('an image that a container runs stays, also under force', async () => {
    const id = await imported('inuse:a', {label: 'inuse'});
    await dc.ok(['run', '-d', '--name', 'runs', 'inuse:a', 'sleep', '1000']);
    expect((await dc.docker(['rmi', '-f', id])).stderr).toMatch(/conflict: unable to delete [0-9a-f]{12} \(cannot be forced\) - image is being used by running container [0-9a-f]{12}/);
    await dc.ok(['stop', '-t', '0', 'runs']);
    expect((await dc.docker(['rmi', id])).stderr).toMatch(/must be forced\) - (image is being used by stopped container|container) [0-9a-f]{12}/);
    // Force takes the name; the container keeps what it is made of, and starts again.
    await dc.ok(['rmi', '-f', 'inuse:a']);
    await dc.ok(['start', 'runs']);
    await dc.ok(['rm', '-f', 'runs']);
    await dc.docker(['rmi', '-f', id]);
  });
});

describe('archives that mean harm', () => {
  const load = async (input: Buffer): Promise<string> => {
    const before = await dc.ok(['images', '-aq', '--no-trunc']);
    const done = await dc.docker(['load'], {input});
    expect(done.status).toBe(1);
    expect(await dc.ok(['images', '-aq', '--no-trunc'])).toBe(before);
    return done.stderr;
  };
  const marker = `/tmp/cetus-escaped-${process.pid}`;
  afterEach(() => expect(fs.existsSync(marker)).toBe(false));

  test.each<[string, LayerEntry]>([
    ['parents', {name: `../../../../../../../..${marker}`, content: 'x'}],
    ['an absolute name', {name: marker, content: 'x'}],
    ['a link out', {name: 'manifest.json', type: 'symlink', linkname: '/etc/passwd'}],
    ['a hard link out', {name: 'manifest.json', type: 'link', linkname: '../../etc/passwd'}],
    ['a device', {name: 'null', type: 'character-device', devmajor: 1, devminor: 3}],
    ['a pipe', {name: 'pipe', type: 'fifo'}],
  ])('%s in the archive', async (_what, entry) => {
    expect(await load(await tarOf([entry]))).toMatch(/invalid archive/);
  });

  test('what is no archive, and nothing at all', async () => {
    expect(await load(Buffer.from('hello, I am not a tar'))).toMatch(/invalid archive|unexpected EOF/);
    expect(await load(Buffer.alloc(0))).toMatch(/invalid archive|unexpected EOF|empty/);
    expect(await load(Buffer.alloc(1 << 20, 0x55))).toMatch(/invalid archive/);
  });

  test('a blob that is not what its name says', async () => {
    const image = buildImage([await buildLayer([{name: 'a', content: 'honest'}])]);
    image.layers[0].bytes = Buffer.from('something else');
    expect(await load(await ociArchive([{image, tags: ['liar:1']}]))).toMatch(/verification failed|digest|sha256/);
  });

  test('a layer whose content is not what the config says', async () => {
    const image = buildImage([await buildLayer([{name: 'a', content: 'one'}])], {diffIds: [`sha256:${'0'.repeat(64)}`]});
    expect(await load(await ociArchive([{image, tags: ['liar:2']}]))).toMatch(/wrong diff id|diff id|verification|mismatch/i);
  });

  test('a layer with names that lead out stays inside the image', async () => {
    const layer = await buildLayer([
      {name: `../../../../../../../..${marker}`, content: 'x'}, {name: marker, content: 'x'},
      {name: 'out', type: 'symlink', linkname: '/tmp'}, {name: `out/${path.basename(marker)}`, content: 'x'},
    ]);
    await dc.docker(['load'], {input: await ociArchive([{image: buildImage([layer]), tags: ['tricky:1']}])});
    expect(fs.existsSync(marker)).toBe(false);
    await dc.docker(['rmi', '-f', 'tricky:1']);
  });
});

/** Loads a small image of its own under a name; returns its id. */
async function imported(name: string, {label}: {label: string}): Promise<string> {
  const image = buildImage([await busyboxLayer(), await buildLayer([{name: label, content: label}])]);
  await dc.ok(['load'], {input: await ociArchive([{image, tags: [`docker.io/library/${name}`]}])});
  return dc.ok(['inspect', '-f', '{{.Id}}', name]);
}
