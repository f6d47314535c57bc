/** Volumes, binds and tmpfs with the stock client: what is kept, what goes, what is refused, and what it all weighs. */
import fs from 'node:fs';
import path from 'node:path';
import {run} from '../harness/cetus';
import {buildImage, buildLayer, busyboxLayer, dockerArchive} from '../harness/images';
import {datacenterWithBusybox, removeContainersAfterEach} from '../harness/suite';
import {until} from '../harness/wait';

const dc = datacenterWithBusybox();
removeContainersAfterEach(dc);
afterEach(() => dc.ok(['volume', 'prune', '-af']));
const scratch = path.join(dc.dataDir, 'scratch');
beforeAll(async () => {
  fs.mkdirSync(scratch);
  const content = await buildLayer([
    {name: 'content', type: 'directory', mode: 0o750, uid: 1000, gid: 1001}, {name: 'content/file', content: 'from the image\n', mode: 0o640, uid: 1000, gid: 1001},
    {name: 'content/deep', type: 'directory'}, {name: 'content/deep/link', type: 'symlink', linkname: '../file'},
  ], 'none');
  await dc.ok(['load'], {input: await dockerArchive([{image: buildImage([await busyboxLayer('none'), content], {config: {Volumes: {'/content': {}}}}), tags: ['content:latest']}])});
}, 240_000);

const lines = (text: string): string[] => text.split('\n').filter(Boolean);
const volumes = async (...args: string[]): Promise<string[]> => lines(await dc.ok(['volume', 'ls', '-q', ...args]));
const sh = (args: string[], command: string): Promise<string> => dc.ok(['run', '--rm', ...args, 'busybox', 'sh', '-c', command]);
const refused = async (args: string[]): Promise<string> => {
  const done = await dc.docker(args);
  expect(done.status).not.toBe(0);
  return done.stderr;
};

describe('named and anonymous', () => {
  test('a named volume is made where it is missing, outlives its containers, and is shared', async () => {
    expect(await sh(['-v', 'data:/d'], 'echo kept > /d/file; cat /d/file')).toBe('kept');
    expect(await sh(['--mount', 'type=volume,source=data,target=/other,readonly'], 'cat /other/file; touch /other/x 2>&1 || true')).toMatch(/^kept\n.*Read-only file system/);
    expect(await sh(['-v', 'data:/d:ro'], 'touch /d/x 2>&1 || true')).toMatch(/Read-only file system/);
    expect(await volumes()).toEqual(['data']);
    const [seen] = JSON.parse(await dc.ok(['volume', 'inspect', 'data'])) as [Record<string, unknown>];
    expect(seen).toMatchObject({Name: 'data', Driver: 'local', Scope: 'local', Options: null});
    expect(await dc.ok(['volume', 'rm', 'data'])).toBe('data');
    expect(await refused(['volume', 'rm', 'data'])).toMatch(/get data: no such volume/);
    await dc.ok(['volume', 'rm', '-f', 'data']);
  });

  test('create with labels, and names that are refused', async () => {
    expect(await dc.ok(['volume', 'create', '--label', 'tier=data', 'made'])).toBe('made');
    expect(await dc.ok(['volume', 'create', 'made'])).toBe('made');
    expect(await dc.ok(['volume', 'create'])).toMatch(/^[0-9a-f]{64}$/);
    expect(await dc.ok(['volume', 'inspect', '-f', '{{json .Labels}}', 'made'])).toBe('{"tier":"data"}');
    expect(await refused(['volume', 'create', 'x'])).toMatch(/volume name is too short/);
    expect(await refused(['volume', 'create', 'a/b'])).toMatch(/includes invalid characters for a local volume name/);
    expect(await refused(['volume', 'create', '-d', 'nfs', 'other'])).toMatch(/plugin "nfs" not found/);
    expect(await refused(['run', '--rm', '-v', 'relative/path:/d', 'busybox', 'true'])).toMatch(/includes invalid characters for a local volume name/);
  });

  test('--rm and rm -v take anonymous ones along, named ones stay; rm alone leaves both', async () => {
    await sh(['-v', '/anonymous', '-v', 'named:/n'], 'true');
    expect(await volumes()).toEqual(['named']);
    await dc.ok(['create', '--name', 'one', '-v', '/anonymous', '-v', 'named:/n', 'busybox']);
    await dc.ok(['create', '--name', 'two', '-v', '/anonymous', 'busybox']);
    expect(await volumes()).toHaveLength(3);
    await dc.ok(['rm', 'one']);
    expect(await volumes()).toHaveLength(3);
    await dc.ok(['rm', '-v', 'two']);
    expect(await volumes()).toEqual([expect.stringMatching(/^[0-9a-f]{64}$/), 'named'].sort());
  });

  test('a volume in use is not removed, running or not', async () => {
    const id = await dc.ok(['create', '--name', 'holder', '-v', 'held:/d', 'busybox']);
    expect(await refused(['volume', 'rm', 'held'])).toContain(`remove held: volume is in use - [${id}]`);
    expect(await refused(['volume', 'rm', '-f', 'held'])).toContain('volume is in use');
    await dc.ok(['rm', 'holder']);
    await dc.ok(['volume', 'rm', 'held']);
  });

  test('ls filters, and prune takes what it should', async () => {
    await dc.ok(['volume', 'create', '--label', 'keep', 'labelled']);
    await dc.ok(['volume', 'create', 'plain']);
    await dc.ok(['create', '--name', 'user', '-v', 'used:/u', '-v', '/anonymous', 'busybox']);
    await dc.ok(['create', '--name', 'gone', '-v', '/anonymous', 'busybox']);
    await dc.ok(['rm', 'gone']);
    expect(await volumes('--filter', 'label=keep')).toEqual(['labelled']);
    expect(await volumes('--filter', 'name=lab')).toEqual(['labelled']);
    expect(await volumes('--filter', 'driver=local')).toHaveLength(5);
    expect(await volumes('--filter', 'dangling=false')).toEqual([expect.stringMatching(/^[0-9a-f]{64}$/), 'used'].sort());
    const dangling = await volumes('--filter', 'dangling=true');
    expect(dangling).toHaveLength(3);
    const anonymous = dangling.find((v) => v.length === 64)!;
    expect(await dc.ok(['volume', 'prune', '-f'])).toBe(`Deleted Volumes:\n${anonymous}\n\nTotal reclaimed space: 0B`);
    expect(await dc.ok(['volume', 'prune', '-af', '--filter', 'label!=keep'])).toContain('Deleted Volumes:\nplain\n');
    expect((await volumes()).filter((v) => v.length < 64)).toEqual(['labelled', 'used']);
    expect(await refused(['volume', 'ls', '--filter', 'nope=1'])).toMatch(/invalid filter 'nope'/);
  });
});

describe('content', () => {
  test('an empty volume is filled from the image, with owners and modes, once', async () => {
    const stat = 'cd /content; stat -c "%u:%g %a %n" . file; cat deep/link';
    expect(await dc.ok(['run', '--rm', '-v', 'filled:/content', 'content', 'sh', '-c', `${stat}; echo changed > file`])).toBe('1000:1001 750 .\n1000:1001 640 file\nfrom the image');
    expect(await dc.ok(['run', '--rm', '-v', 'filled:/content', 'content', 'cat', '/content/file'])).toBe('changed');
    expect(await dc.ok(['run', '--rm', '-v', 'bare:/content:nocopy', 'content', 'ls', '/content'])).toBe('');
    expect(await dc.ok(['run', '--rm', '--mount', 'type=volume,source=sub,target=/content,volume-nocopy=false', 'content', 'ls', '/content'])).toBe('deep\nfile');
    // The image's own VOLUME is an anonymous one.
    await dc.ok(['create', '--name', 'own', 'content', 'true']);
    expect(await dc.ok(['inspect', '-f', '{{range .Mounts}}{{.Type}} {{.Destination}} {{.RW}}{{end}}', 'own'])).toBe('volume /content true');
  });

  test('--volumes-from shows the other container\'s, read-only if asked', async () => {
    await dc.ok(['run', '--name', 'source', '-v', 'shared:/s', '-v', '/a', 'busybox', 'sh', '-c', 'echo s > /s/f; echo a > /a/f']);
    expect(await sh(['--volumes-from', 'source'], 'cat /s/f /a/f; echo more > /a/g')).toBe('s\na');
    expect(await sh(['--volumes-from', 'source:ro'], 'cat /a/g; touch /s/x 2>&1 || true')).toMatch(/^more\n.*Read-only/);
    expect(await volumes()).toHaveLength(2);
    expect(await refused(['run', '--rm', '--volumes-from', 'nobody', 'busybox', 'true'])).toMatch(/No such container: nobody/);
  });

  test('what volumes and layers weigh', async () => {
    await dc.ok(['run', '--name', 'writer', '-v', 'heavy:/v', 'busybox', 'sh', '-c', 'dd if=/dev/zero of=/v/f bs=1000 count=3000; dd if=/dev/zero of=/layer bs=1M count=5']);
    const sizeRw = Number(await dc.ok(['inspect', '-s', '-f', '{{.SizeRw}}', 'writer']));
    expect(sizeRw).toBeGreaterThanOrEqual(5 << 20);
    expect(sizeRw).toBeLessThan(6 << 20);
    expect(await dc.ok(['ps', '-as', '--format', '{{.Size}}'])).toMatch(/^5\.\d+MB \(virtual \d\.\d+MB\)$/);
    const table = (await dc.ok(['system', 'df'])).split('\n');
    expect(table.find((l) => l.startsWith('Containers'))).toMatch(/ 1 +0 +5\.\d+MB +5\.\d+MB \(100%\)/);
    expect(table.find((l) => l.startsWith('Local Volumes'))).toMatch(/ 1 +1 +3MB +0B \(0%\)/);
    expect(await dc.ok(['system', 'df', '-v'])).toMatch(/^heavy +1 +3MB$/m);
    expect(await dc.ok(['container', 'prune', '-f'])).toMatch(/Total reclaimed space: 5\.\d+MB/);
    expect(await dc.ok(['volume', 'prune', '-af'])).toMatch(/Total reclaimed space: 3MB/);
  });
});

describe('driver options', () => {
  const mounted = (): number => fs.readFileSync('/proc/self/mountinfo', 'utf8').split('\n').filter((line) => dc.nodeDirs.some((dir) => line.includes(`${dir}/agent/volumes/`))).length;
  const create = (name: string, options: Record<string, string>): Promise<string> => dc.ok(['volume', 'create', ...Object.entries(options).flatMap(([k, v]) => ['--opt', `${k}=${v}`]), name]);

  test('tmpfs: there while somebody runs on it, also past the end of the agent, and gone with the last', async () => {
    await create('ram', {type: 'tmpfs', device: 'tmpfs', o: 'size=1m,mode=0750'});
    expect(JSON.parse(await dc.ok(['volume', 'inspect', '-f', '{{json .Options}}', 'ram']))).toEqual({type: 'tmpfs', device: 'tmpfs', o: 'size=1m,mode=0750'});
    await dc.ok(['create', '--name', 'early', '-v', 'ram:/r', 'busybox', 'sleep', '1000']);
    expect(mounted()).toBe(0);
    await dc.ok(['start', 'early']);
    expect(await dc.ok(['exec', 'early', 'sh', '-c', 'grep " /r " /proc/mounts; stat -c %a /r; echo x > /r/f'])).toMatch(/^tmpfs \/r tmpfs rw,.*size=1024k.*\n750$/);
    await dc.ok(['run', '-d', '--name', 'late', '-v', 'ram:/r', 'busybox', 'sleep', '1000']);
    expect([await dc.ok(['exec', 'late', 'cat', '/r/f']), mounted()]).toEqual(['x', 1]);
    await dc.kill(await dc.part('agent', 'late'));
    await until('it to serve', async () => (await dc.docker(['rm', '-f', 'early'])).status === 0);
    expect([await dc.ok(['exec', 'late', 'cat', '/r/f']), mounted()]).toEqual(['x', 1]);
    expect(await dc.ok(['system', 'df', '-v'])).not.toMatch(/^ram /m);
    await dc.ok(['stop', '-t', '0', 'late']);
    await until('the last mount to go', () => mounted() === 0);
    expect(await sh(['-v', 'ram:/r'], 'ls /r')).toBe('');
    await dc.ok(['rm', 'late']);
    await dc.ok(['volume', 'rm', 'ram']);
  });

  test('a directory of the node: filled from the image, shared with the node, and left alone by rm', async () => {
    const dir = path.join(scratch, 'bound');
    fs.mkdirSync(dir);
    await create('bound', {type: 'none', device: dir, o: 'bind'});
    expect(await dc.ok(['run', '--rm', '-v', 'bound:/content', 'content', 'sh', '-c', 'stat -c "%u:%g %a %n" /content /content/file; cat /content/deep/link; echo new > /content/new'])).toBe('1000:1001 750 /content\n1000:1001 640 /content/file\nfrom the image');
    expect(fs.readdirSync(dir)).toEqual(['deep', 'file', 'new']);
    expect(fs.statSync(dir).mode & 0o777).toBe(0o750);
    expect(await dc.ok(['run', '--rm', '--mount', 'type=volume,source=bound,target=/m,volume-subpath=deep,readonly', 'busybox', 'sh', '-c', 'ls /m; touch /m/x 2>&1 || true'])).toMatch(/^link\n.*Read-only/);
    await until('the last mount to go', () => mounted() === 0);
    await dc.ok(['volume', 'rm', 'bound']);
    expect(fs.readdirSync(dir)).toEqual(['deep', 'file', 'new']);
  });

  test('a file system on a device', async () => {
    const image = path.join(scratch, 'disk');
    fs.writeFileSync(image, '');
    fs.truncateSync(image, 8 << 20);
    expect((await run('mkfs.ext4', ['-q', image])).status).toBe(0);
    const device = (await run('losetup', ['-f', '--show', image])).stdout.trim();
    try {
      await create('disk', {type: 'ext4', device});
      expect(await sh(['-v', 'disk:/d'], 'grep " /d " /proc/mounts | cut -d" " -f1,3; echo kept > /d/f')).toBe(`${device} ext4`);
      expect(await sh(['-v', 'disk:/d:ro'], 'cat /d/f')).toBe('kept');
      await until('the last mount to go', () => mounted() === 0);
      await dc.ok(['volume', 'rm', 'disk']);
    } finally {
      await run('losetup', ['-d', device]);
    }
  });

  test('mistakes are told at create where they can be seen there, else at the start, and leave nothing mounted', async () => {
    for (const [options, text] of [
      [{what: 'ever'}, 'create wrong: invalid option: "what"'], [{type: 'tmpfs'}, 'create wrong: missing required option: "device"'], [{device: 'tmpfs'}, 'create wrong: missing required option: "type"'],
      [{size: '10m'}, 'create wrong: quota size requested but no quota support'], [{size: 'much'}, 'create wrong: invalid size: \'much\''],
    ] as [Record<string, string>, string][]) {
      expect(await refused(['volume', 'create', ...Object.entries(options).flatMap(([k, v]) => ['--opt', `${k}=${v}`]), 'wrong'])).toContain(text);
    }
    await create('nowhere', {type: 'none', device: path.join(scratch, 'nowhere'), o: 'bind'});
    await create('nothing', {type: 'nosuchfs', device: '/dev/null'});
    await create('unknown', {type: 'nfs', device: ':/x', o: 'addr=no-such-host.invalid'});
    expect(await refused(['run', '--rm', '-v', 'nowhere:/d', 'busybox', 'true'])).toMatch(/error while mounting volume '.*_data': failed to mount local volume: mount .*nowhere:.*_data, flags: 0x1000: no such file or directory/);
    expect(await refused(['run', '--rm', '-v', 'nothing:/d', 'busybox', 'true'])).toMatch(/failed to mount local volume: mount \/dev\/null:.*_data: no such device/);
    expect(await refused(['run', '--rm', '-v', 'unknown:/d', 'busybox', 'true'])).toMatch(/error resolving passed in network volume address: lookup no-such-host\.invalid/);
    // The image has something for the place: already create looks into the volume.
    expect(await refused(['create', '-v', 'nowhere:/content', 'content'])).toMatch(/failed to mount local volume/);
    expect(await refused(['run', '--rm', '--volume-driver', 'other', '-v', 'new:/d', 'busybox', 'true'])).toContain('create new: error looking up volume plugin other: plugin "other" not found');
    expect(mounted()).toBe(0);
  });
});

describe('binds', () => {
  test('a host directory, both ways, read-only, and a single file', async () => {
    const dir = path.join(scratch, 'bind');
    fs.mkdirSync(dir);
    fs.writeFileSync(path.join(dir, 'file'), 'host\n');
    expect(await sh(['-v', `${dir}:/b`], 'cat /b/file; echo container > /b/other')).toBe('host');
    expect(fs.readFileSync(path.join(dir, 'other'), 'utf8')).toBe('container\n');
    expect(await sh(['-v', `${dir}:/b:ro`], 'touch /b/x 2>&1 || true')).toMatch(/Read-only/);
    expect(await sh(['-v', `${dir}/file:/etc/one:ro`], 'cat /etc/one')).toBe('host');
    expect(await dc.ok(['run', '--rm', '-v', `${dir}:/content`, 'content', 'ls', '/content'])).toBe('file\nother');
    expect(await volumes()).toEqual([]);
  });

  test('read-only is what is mounted below too, unless asked otherwise', async () => {
    const dir = path.join(scratch, 'nested');
    fs.mkdirSync(path.join(dir, 'sub'), {recursive: true});
    expect((await run('mount', ['-t', 'tmpfs', 'tmpfs', path.join(dir, 'sub')])).status).toBe(0);
    try {
      const touch = 'touch /b/sub/x 2>&1 && echo written || true';
      expect(await sh(['-v', `${dir}:/b:ro`], touch)).toMatch(/Read-only/);
      expect(await sh(['--mount', `type=bind,source=${dir},target=/b,readonly,bind-propagation=rprivate,bind-recursive=readonly`], touch)).toMatch(/Read-only/);
      expect(await sh(['--mount', `type=bind,source=${dir},target=/b,readonly,bind-recursive=writable`], `touch /b/x 2>&1 || ${touch}`)).toMatch(/Read-only.*\nwritten$/);
      expect(await sh(['--mount', `type=bind,source=${dir},target=/b,bind-recursive=disabled`], 'ls /b/sub')).toBe('');
    } finally {
      await run('umount', [path.join(dir, 'sub')]);
    }
  });

  test('a missing source is made for -v and refused for --mount', async () => {
    const made = path.join(scratch, 'made/by/us');
    await sh(['-v', `${made}:/b`], 'true');
    expect(fs.statSync(made).isDirectory()).toBe(true);
    const missing = path.join(scratch, 'missing');
    expect(await refused(['run', '--rm', '--mount', `type=bind,source=${missing},target=/b`, 'busybox', 'true'])).toContain(`invalid mount config for type "bind": bind source path does not exist: ${missing}`);
    expect(fs.existsSync(missing)).toBe(false);
    expect(await refused(['create', '--mount', `type=bind,source=${missing},target=/b`, '--mount', 'type=volume,source=unborn,target=/v', 'busybox'])).toContain('bind source path does not exist');
    expect(await dc.ok(['ps', '-aq'])).toBe('');
    expect(await volumes()).toEqual([]);
    expect(await refused(['run', '--rm', '-v', '/tmp:/', 'busybox', 'true'])).toContain("destination can't be '/'");
    expect(await refused(['run', '--rm', '-v', 'one:/d', '-v', 'two:/d', 'busybox', 'true'])).toContain('Duplicate mount point: /d');
  });
});

describe('tmpfs', () => {
  test('defaults, size, mode, exec', async () => {
    const options = async (args: string[]): Promise<string> => (await sh(args, 'grep " /t " /proc/mounts; stat -c %a /t')).replace(/\n/, ' mode ');
    expect(await options(['--tmpfs', '/t'])).toMatch(/^tmpfs \/t tmpfs rw,nosuid,nodev,noexec,relatime.* mode 1777$/);
    expect(await options(['--tmpfs', '/t:size=1m,mode=0700,exec'])).toMatch(/^tmpfs \/t tmpfs rw,nosuid,nodev,relatime.*size=1024k.* mode 700$/);
    expect(await options(['--mount', 'type=tmpfs,target=/t,tmpfs-size=2m,tmpfs-mode=0750'])).toMatch(/size=2048k.* mode 750$/);
    expect(await sh(['--tmpfs', '/t:size=1m'], 'dd if=/dev/zero of=/t/f bs=1M count=2 2>&1 || true')).toMatch(/No space left on device/);
    await dc.ok(['run', '--name', 'forgetful', '--tmpfs', '/t', 'busybox', 'sh', '-c', 'ls /t; touch /t/f']);
    expect(await dc.ok(['start', '-a', 'forgetful'])).toBe('');
  });
});
