/** Files of a container from outside: nothing is read or written beyond its root, whatever links say and whoever rewrites them meanwhile. */
import {spawn} from 'node:child_process';
import {once} from 'node:events';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import {join} from 'node:path';
import {Readable} from 'node:stream';
import fc from 'fast-check';
import {type Header, extract, pack as tarPack} from 'tar-stream';
import {changesBetween} from '../../lib/agent/rootfs/changes';
import {packPlace} from '../../lib/agent/rootfs/pack';
import {statPlace} from '../../lib/agent/rootfs/path-stat';
import {makeNode, setXattr} from '../../lib/agent/rootfs/syscalls';
import {TarWriter, record} from '../../lib/agent/rootfs/tar-writer';
import {RootfsHelper, type UnpackTarget} from '../../lib/agent/rootfs/helper';
import type {View} from '../../lib/agent/rootfs/protocol';
import {TarReader} from '../../lib/agent/rootfs/tar-reader';
import {Tree, openDirectoryAt, openFileAt, removeAt} from '../../lib/agent/rootfs/tree';
import {unpackInto} from '../../lib/agent/rootfs/unpack';
import {holdBack} from '../../lib/base/descriptor';
import {type LoanOffer, LOAN_GOOD} from '../../lib/schema/agent';

let base: string;
let root: string;
let outside: string;
let tree: Tree;

beforeEach(() => {
  base = fs.mkdtempSync(join(os.tmpdir(), 'cetus-rootfs-'));
  root = join(base, 'root');
  outside = join(base, 'outside');
  fs.mkdirSync(join(root, 'dir/sub'), {recursive: true});
  fs.mkdirSync(join(root, 'etc'));
  fs.mkdirSync(outside);
  fs.writeFileSync(join(outside, 'secret'), 'STOLEN');
  fs.writeFileSync(join(root, 'etc/passwd'), 'inside');
  tree = Tree.open(root);
});

afterEach(() => {
  tree.close();
  fs.rmSync(base, {recursive: true, force: true});
});

function packed(path: string, name: string, oneFileSystem = false): Buffer {
  const parts: Buffer[] = [];
  const writer = new TarWriter((b) => void parts.push(Buffer.from(b)));
  const place = tree.place(path);
  try {
    packPlace(place, writer, {name, oneFileSystem});
  } finally {
    fs.closeSync(place.dirfd);
  }
  writer.finish();
  return Buffer.concat(parts);
}

async function entriesOf(tar: Buffer): Promise<{header: Header; content: string}[]> {
  const found: {header: Header; content: string}[] = [];
  const entries = extract();
  Readable.from([tar]).pipe(entries);
  for await (const entry of entries) {
    const parts: Buffer[] = [];
    for await (const chunk of entry as unknown as AsyncIterable<Buffer>) parts.push(chunk);
    found.push({header: entry.header, content: Buffer.concat(parts).toString()});
  }
  return found;
}

interface Written { name: string; content?: string; type?: Header['type']; linkname?: string; [key: string]: unknown }

async function archiveOf(entries: Written[]): Promise<Buffer> {
  const tar = tarPack();
  for (const {content, ...header} of entries) tar.entry(header as never, content ?? '');
  tar.finalize();
  const parts: Buffer[] = [];
  for await (const chunk of tar as unknown as AsyncIterable<Buffer>) parts.push(chunk);
  return Buffer.concat(parts);
}

/** Gives the bytes in pieces of at most `piece`. */
function readerOf(bytes: Buffer, piece = 1 << 20): TarReader {
  let at = 0;
  return new TarReader((into, offset, length) => {
    const copied = bytes.copy(into, offset, at, Math.min(bytes.length, at + Math.min(length, piece)));
    at += copied;
    return copied;
  });
}

const unpackBytes = (bytes: Buffer, directory = '/', options: {noOverwriteDirNonDir?: boolean} = {}): void =>
  unpackInto(tree, readerOf(bytes), {directory, noOverwriteDirNonDir: false, ...options});
const unpack = async (entries: Written[], directory = '/', options: {noOverwriteDirNonDir?: boolean} = {}): Promise<void> =>
  unpackBytes(await archiveOf(entries), directory, options);

function statOf(path: string, name = 'x'): ReturnType<typeof statPlace> {
  const place = tree.place(path);
  try {
    return statPlace(tree, place, name);
  } finally {
    fs.closeSync(place.dirfd);
  }
}

describe('looking', () => {
  test('links are resolved as the container would, also absolute ones and those that climb', () => {
    fs.symlinkSync('/etc/passwd', join(root, 'abs'));
    fs.symlinkSync('../../../../../../etc/passwd', join(root, 'dir/climb'));
    fs.symlinkSync('/etc', join(root, 'link-dir'));
    fs.symlinkSync('nowhere', join(root, 'dir/dangling'));
    expect(statOf('/abs')).toMatchObject({linkTarget: '/etc/passwd'});
    expect(statOf('/dir/climb')).toMatchObject({linkTarget: '/etc/passwd'});
    expect(statOf('/link-dir/passwd')).toMatchObject({linkTarget: '', size: 6});
    expect(statOf('/dir/dangling')).toMatchObject({linkTarget: '/dir/nowhere'});
    expect(statOf('/../../etc/passwd')).toMatchObject({size: 6});
    expect(statOf('/nothing')).toBeUndefined();
    expect(() => tree.place('/etc/passwd/x')).toThrow(/ENOTDIR/);
  });

  test('modes are Go\'s', () => {
    fs.chmodSync(join(root, 'dir'), 0o1777);
    fs.chmodSync(join(root, 'etc/passwd'), 0o4755);
    expect(statOf('/dir')!.mode).toBe(2 ** 31 + 2 ** 20 + 0o777);
    expect(statOf('/dir/')!.mode).toBe(2 ** 31 + 2 ** 20 + 0o777);
    expect(statOf('/etc/passwd')!.mode).toBe(2 ** 23 + 0o755);
    expect(statOf('/etc/passwd')!.mtime).toMatch(/^\d{4}-.*Z$/);
  });
});

describe('out', () => {
  test('a directory with all kinds of entries, as any tar reads it', async () => {
    fs.writeFileSync(join(root, 'dir/a'), 'A'.repeat(1000), {mode: 0o640});
    fs.linkSync(join(root, 'dir/a'), join(root, 'dir/b'));
    fs.symlinkSync('/outside', join(root, 'dir/l'));
    fs.lchownSync(join(root, 'dir/l'), 7, 8);
    fs.writeFileSync(join(root, `dir/${'long'.repeat(40)}`), 'L');
    fs.writeFileSync(join(root, 'dir/größe'), 'U');
    fs.writeFileSync(Buffer.from(`${root}/dir/\xff\xfe`, 'latin1'), 'B');
    const tar = packed('/dir', 'asked');
    const byName = new Map((await entriesOf(tar)).map((e) => [e.header.name, e]));
    expect([...byName.keys()].slice(0, 3)).toEqual(['asked/', 'asked/a', 'asked/b']);
    expect(byName.get('asked/a')).toMatchObject({header: {type: 'file', mode: 0o640, size: 1000}, content: 'A'.repeat(1000)});
    expect(byName.get('asked/b')).toMatchObject({header: {type: 'link', linkname: 'asked/a'}});
    expect(byName.get('asked/l')).toMatchObject({header: {type: 'symlink', linkname: '/outside', uid: 7, gid: 8}});
    expect(byName.get(`asked/${'long'.repeat(40)}`)).toMatchObject({content: 'L'});
    expect(byName.get('asked/größe')).toMatchObject({content: 'U'});
    const other = join(base, 'other');
    fs.mkdirSync(other);
    const child = spawn('tar', ['-x', '-C', other], {stdio: ['pipe', 'ignore', 'inherit']});
    child.stdin.end(tar);
    expect(await new Promise((resolve) => child.once('close', resolve))).toBe(0);
    expect(fs.readFileSync(Buffer.from(`${other}/asked/\xff\xfe`, 'latin1'), 'utf8')).toBe('B');
    expect(fs.statSync(join(other, 'asked/b')).ino).toBe(fs.statSync(join(other, 'asked/a')).ino);
  });

  test('file capabilities keep their bytes', () => {
    const capability = Buffer.from('0100000280ff0000000000000000000000000000', 'hex');
    setXattr(join(root, 'etc'), 'security.capability', capability.subarray(0, 20));
    expect(packed('/etc', 'etc').includes(record('SCHILY.xattr.security.capability', capability))).toBe(true);
  });

  test('a link is copied as a link, and what it leads to only when it is asked for as a directory', async () => {
    fs.symlinkSync('/etc', join(root, 'l'));
    expect((await entriesOf(packed('/l', 'l'))).map((e) => e.header.type)).toEqual(['symlink']);
    expect((await entriesOf(packed('/l/', 'l'))).map((e) => e.header.name)).toEqual(['l/', 'l/passwd']);
  });
});

describe('in', () => {
  test('files, modes, owners, times, links, FIFOs and devices', async () => {
    const mtime = new Date(1_600_000_000_000);
    await unpack([
      {name: 'new/', type: 'directory', mode: 0o751, mtime, uid: 3, gid: 4},
      {name: 'new/file', content: 'text', mode: 0o4755, mtime, uid: 5, gid: 6},
      {name: 'new/hard', type: 'link', linkname: 'new/file'},
      {name: 'new/soft', type: 'symlink', linkname: '/etc/passwd', mtime},
      {name: 'new/fifo', type: 'fifo', mode: 0o600},
      {name: 'new/null', type: 'character-device', devmajor: 1, devminor: 3, mode: 0o666},
      {name: 'made/on/the/way', content: 'deep'},
    ], '/dir');
    const at = (name: string): fs.Stats => fs.lstatSync(join(root, 'dir/new', name));
    expect(at('.')).toMatchObject({uid: 3, gid: 4, mtimeMs: +mtime});
    expect(at('file')).toMatchObject({uid: 5, gid: 6, mtimeMs: +mtime, nlink: 2});
    expect(at('file').mode & 0o7777).toBe(0o4755);
    expect(at('hard').ino).toBe(at('file').ino);
    expect(fs.readlinkSync(join(root, 'dir/new/soft'))).toBe('/etc/passwd');
    expect(at('fifo').isFIFO()).toBe(true);
    expect(at('null').rdev).toBe(fs.statSync('/dev/null').rdev);
    expect(fs.readFileSync(join(root, 'dir/made/on/the/way'), 'utf8')).toBe('deep');
  });

  test('links inside the root lead inside, whatever they say', async () => {
    fs.symlinkSync(outside, join(root, 'dir/out'));
    fs.mkdirSync(join(root, outside), {recursive: true});
    await unpack([{name: 'out/secret', content: 'changed'}, {name: 'later', type: 'symlink', linkname: outside}, {name: 'later/more', content: 'm'}], '/dir');
    expect(fs.readdirSync(outside)).toEqual(['secret']);
    expect(fs.readFileSync(join(outside, 'secret'), 'utf8')).toBe('STOLEN');
    expect(fs.readFileSync(join(root, outside, 'secret'), 'utf8')).toBe('changed');
    expect(fs.readFileSync(join(root, outside, 'more'), 'utf8')).toBe('m');
  });

  test('a name that climbs, a hard link to what is outside: refused', async () => {
    await expect(unpack([{name: '../x', content: 'x'}], '/dir')).rejects.toThrow(/outside of/);
    await expect(unpack([{name: 'a/../../x', content: 'x'}], '/dir')).rejects.toThrow(/outside of/);
    await expect(unpack([{name: 'h', type: 'link', linkname: '../../outside/secret'}], '/dir')).rejects.toThrow(/invalid hardlink/);
    fs.symlinkSync(`${outside}/secret`, join(root, 'dir/s'));
    await unpack([{name: 'h', type: 'link', linkname: 's'}], '/dir');
    await expect(unpack([{name: 'h2', type: 'link', linkname: `${outside}/secret`}], '/dir')).rejects.toThrow(/no such file or directory/);
    await expect(unpack([{name: 'up', type: 'symlink', linkname: '../../outside'}], '/dir')).rejects.toThrow('invalid symlink "/dir/up" -> "../../outside"');
    expect(fs.lstatSync(join(root, 'dir/h')).isSymbolicLink()).toBe(true);
  });

  test('what stands in the way is replaced, unless that was forbidden', async () => {
    fs.writeFileSync(join(root, 'dir/sub/f'), 'f');
    await expect(unpack([{name: 'sub', content: 'x'}], '/dir', {noOverwriteDirNonDir: true})).rejects.toThrow(/cannot overwrite directory "\/dir\/sub" with non-directory/);
    await expect(unpack([{name: 'passwd/', type: 'directory'}], '/etc', {noOverwriteDirNonDir: true})).rejects.toThrow(/cannot overwrite non-directory/);
    await unpack([{name: 'sub', content: 'x'}], '/dir');
    expect(fs.readFileSync(join(root, 'dir/sub'), 'utf8')).toBe('x');
    await unpack([{name: './', type: 'directory', mode: 0o700}, {name: './y', content: 'y'}], '/dir');
    expect(fs.readFileSync(join(root, 'dir/y'), 'utf8')).toBe('y');
  });

  test('a tar that ends early, or claims more than comes, is an error', async () => {
    fs.writeFileSync(join(root, 'etc/passwd'), 'p'.repeat(600));
    const whole = packed('/etc', 'etc');
    const passwd = whole.indexOf('etc/passwd');
    for (const length of [1, 511, passwd + 3, passwd + 512, passwd + 1111]) expect(() => unpackBytes(whole.subarray(0, length), '/dir')).toThrow('unexpected EOF');
    // The last padding and the two empty blocks at the end are not missed.
    for (const length of [0, 512, passwd + 512 + 600, whole.length - 1024, whole.length - 512]) unpackBytes(whole.subarray(0, length), '/dir');
    expect(() => unpackBytes(Buffer.alloc(512, 'x'), '/dir')).toThrow('archive/tar: invalid tar header');
    const claims = await archiveOf([{name: 'big', content: ''}]);
    claims.write('77777777777\0', 124, 'latin1');
    claims.write('        ', 148, 'latin1');
    claims.write(`${claims.subarray(0, 512).reduce((sum, byte) => sum + byte, 0).toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
    expect(() => unpackBytes(claims, '/dir')).toThrow('unexpected EOF');
    expect(fs.statSync(join(root, 'dir/big')).blocks).toBeLessThan(100);
  });

  test('any archive at all touches nothing outside', async () => {
    const part = fc.constantFrom('a', 'b', '..', '.', 'dir', 'l', '', outside, '/etc');
    const path = fc.array(part, {minLength: 1, maxLength: 4}).map((parts) => parts.join('/'));
    const entry = fc.record({name: path, type: fc.constantFrom('file', 'directory', 'symlink', 'link', 'fifo'), linkname: path, mode: fc.integer({min: 0, max: 0o7777})});
    const before = fs.lstatSync(join(outside, 'secret'));
    await fc.assert(fc.asyncProperty(fc.array(entry, {maxLength: 12}), async (entries) => {
      await unpack(entries.map((e) => ({...e, name: e.name || 'n', type: e.type as Header['type'], content: e.type === 'file' ? 'evil' : undefined})), '/dir').catch((err: NodeJS.ErrnoException) => {
        expect(err.code ?? (err as {kind?: string}).kind).toBeDefined();
      });
      expect(fs.readdirSync(base).sort()).toEqual(['outside', 'root']);
      expect(fs.readdirSync(outside)).toEqual(['secret']);
      const now = fs.lstatSync(join(outside, 'secret'));
      expect([now.mode, now.uid, now.nlink, now.mtimeMs]).toEqual([before.mode, before.uid, before.nlink, before.mtimeMs]);
      expect(fs.readFileSync(join(outside, 'secret'), 'utf8')).toBe('STOLEN');
    }), {numRuns: 150});
  });
});

test('one who swaps a directory for a link all the time gains nothing', async () => {
  fs.mkdirSync(join(root, 'dir/real'));
  fs.writeFileSync(join(root, 'dir/real/secret'), 'mine');
  fs.writeFileSync(join(root, 'dir/real/f'), 'mine');
  const script = `cd ${join(root, 'dir')}; ln -s ${outside} link; echo ready; while :; do mv -T real aside; mv -T link real; mv -T real link; mv -T aside real; done 2>/dev/null`;
  const attacker = spawn('sh', ['-c', script], {stdio: ['ignore', 'pipe', 'ignore'], detached: true});
  try {
    await new Promise((resolve) => attacker.stdout.once('data', resolve));
    let read = 0;
    for (let i = 0; i < 200; i++) {
      try {
        const tar = packed(i % 2 ? '/dir' : '/dir/real/', 'x');
        if (tar.includes('mine')) read += 1;
        expect(tar.includes('STOLEN')).toBe(false);
      } catch (err) {
        expect((err as NodeJS.ErrnoException).code).toMatch(/ENOENT|ENOTDIR|ELOOP/);
      }
      await unpack([{name: 'real/put', content: 'put', mode: 0o777, uid: 9, gid: 9}, {name: 'real', type: 'directory'}], '/dir').catch(() => undefined);
    }
    expect(read).toBeGreaterThan(0);
    expect(fs.readdirSync(outside)).toEqual(['secret']);
  } finally {
    process.kill(-attacker.pid!, 'SIGKILL');
    await new Promise((resolve) => attacker.once('close', resolve));
  }
});

test('what has become a link since it was looked at is refused, not followed', () => {
  fs.symlinkSync(outside, join(root, 'd'));
  fs.symlinkSync(join(outside, 'secret'), join(root, 'f'));
  expect(() => openDirectoryAt(tree.rootFd, 'd')).toThrow(/ELOOP|ENOTDIR/);
  expect(() => openFileAt(tree.rootFd, 'f')).toThrow(/ELOOP/);
  removeAt(tree.rootFd, 'd');
  expect(fs.readdirSync(outside)).toEqual(['secret']);
});

test('changes: added, modified, removed, and directories only where something is', () => {
  const lower = join(base, 'lower');
  fs.mkdirSync(join(lower, 'etc/keep'), {recursive: true});
  fs.mkdirSync(join(lower, 'gone'));
  fs.writeFileSync(join(lower, 'etc/passwd'), 'old');
  fs.writeFileSync(join(root, 'etc/new'), 'n');
  fs.rmSync(join(root, 'dir'), {recursive: true});
  makeNode(tree.rootFd, 'gone', fs.constants.S_IFCHR, 0o600);
  makeNode(tree.rootFd, 'never', fs.constants.S_IFCHR, 0o600);
  const below = Tree.open(lower);
  try {
    expect(changesBetween(tree, below)).toEqual([
      {Path: '/etc', Kind: 0}, {Path: '/etc/new', Kind: 1}, {Path: '/etc/passwd', Kind: 0}, {Path: '/gone', Kind: 2},
    ]);
    expect(changesBetween(tree, undefined).map((c) => c.Path)).toEqual(['/etc', '/etc/new', '/etc/passwd']);
  } finally {
    below.close();
  }
});

describe('a worker', () => {
  const view = (): View => ({kind: 'tree', path: root});
  const into = (path: string): UnpackTarget => ({path, container: 'c', noOverwriteDirNonDir: false, readOnlyRoot: false});
  const helper = new RootfsHelper({worker: join(__dirname, '../../dist/agent/rootfs/worker.js')});
  afterAll(() => helper.close());
  const never = new AbortController().signal;
  const childrenLeft = (): string[] => fs.readdirSync('/proc').filter((pid) => /^\d+$/.test(pid)).filter((pid) => {
    try {
      return fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('rootfs/worker.js') && fs.readFileSync(`/proc/${pid}/stat`, 'utf8').includes(` ${process.pid} `);
    } catch {
      return false;
    }
  });

  test('a tree goes out of one root and into another', async () => {
    fs.writeFileSync(join(root, 'dir/big'), Buffer.alloc(3_000_000, 'b'));
    fs.symlinkSync('/dir', join(root, 'l'));
    const {stat, tar} = await helper.pack(view(), '/dir', 'c', never);
    expect(stat).toMatchObject({name: 'dir', linkTarget: ''});
    await helper.unpack(view(), into('/etc'), async () => tar, never);
    expect(fs.statSync(join(root, 'etc/dir/big')).size).toBe(3_000_000);
    expect(await helper.stat(view(), '/l', 'c', never)).toMatchObject({name: 'l', linkTarget: '/dir'});
    expect(await helper.changes({upper: root, lower: [], made: [], place: base}, never)).toContainEqual({Path: '/etc/dir/big', Kind: 1});
    const names = (await entriesOf(Buffer.concat(await (await helper.export(view(), never)).toArray() as Buffer[]))).map((e) => e.header.name);
    expect(names).toEqual(['dir/', 'dir/big', 'dir/sub/', 'etc/', 'etc/dir/', 'etc/dir/big', 'etc/dir/sub/', 'etc/passwd', 'l']);
  });

  test('an archive in a descriptor of ours is read by the worker itself; one that cannot be had comes through us', async () => {
    fs.writeFileSync(join(base, 'tar'), await archiveOf([{name: 'x', content: 'by descriptor'}]));
    const descriptor = fs.openSync(join(base, 'tar'), 'r');
    const silent = new Readable({read: () => undefined});
    await helper.unpack(view(), {...into('/etc'), descriptor}, async () => silent, never);
    expect(fs.readFileSync(join(root, 'etc/x'), 'utf8')).toBe('by descriptor');
    silent.destroy();
    // Whose connection is closed by now, its number may be somebody else's.
    await expect(helper.unpack(view(), {...into('/etc'), descriptor}, async () => silent, never)).rejects.toMatchObject({kind: 'canceled'});
    fs.closeSync(descriptor);
    await helper.unpack(view(), {...into('/etc'), descriptor: 1_000_000}, async () => Readable.from([await archiveOf([{name: 'x', content: 'by stdin'}])]), never);
    expect(fs.readFileSync(join(root, 'etc/x'), 'utf8')).toBe('by stdin');
  });

  describe('a connection that was lent', () => {
    const sockets: net.Socket[] = [];
    const servers: net.Server[] = [];
    /** Both its ends are ours. */
    const pair = async (path: string): Promise<[net.Socket, net.Socket]> => {
      const server = net.createServer({pauseOnConnect: true}).listen(join(base, path));
      servers.push(server);
      await once(server, 'listening');
      const near = net.connect(join(base, path));
      const [far] = await once(server, 'connection') as [net.Socket];
      sockets.push(near, far);
      for (const socket of [near, far]) socket.on('error', () => undefined);
      return [near, far];
    };
    afterEach(() => {
      sockets.splice(0).forEach((socket) => socket.destroy());
      servers.splice(0).forEach((server) => server.close());
    });
    const fdOf = (socket: net.Socket): number => holdBack(socket)!.descriptor;
    const offer = (descriptor: number, before: number): LoanOffer => ({descriptor, before, framing: {kind: 'chunked', at: 'size', left: 0, line: ''}, silenceMs: 60_000});

    test('is read by the worker itself, behind what its owner had read of it', async () => {
      const tar = await archiveOf([{name: 'x', content: 'lent'}]);
      const [caller, agent] = await pair('agent');
      const [client, endpoint] = await pair('client');
      for (const part of [tar.subarray(100, 700), tar.subarray(700)]) client.write(Buffer.concat([Buffer.from(`${part.length.toString(16)}\r\n`), part, Buffer.from('\r\n')]));
      client.write('0\r\n\r\n');
      let reads: unknown;
      await helper.unpack(view(), {...into('/etc'), descriptor: fdOf(agent), loan: offer(fdOf(endpoint), 100)}, async (said) => {
        reads = said;
        caller.write(Buffer.concat([LOAN_GOOD, tar.subarray(0, 100)]));
        return agent;
      }, never);
      expect(reads).toEqual({descriptor: true, loan: true});
      expect(fs.readFileSync(join(root, 'etc/x'), 'utf8')).toBe('lent');
      // Nobody here has touched a byte.
      expect([agent.bytesRead, endpoint.bytesRead]).toEqual([0, 0]);
    });

    test('that ends before the body is an archive that breaks off, one that is silent has stalled', async () => {
      const [caller, agent] = await pair('agent');
      const [client, endpoint] = await pair('client');
      client.end('200\r\n');
      caller.write(LOAN_GOOD);
      await expect(helper.unpack(view(), {...into('/etc'), descriptor: fdOf(agent), loan: offer(fdOf(endpoint), 0)}, async () => agent, never)).rejects.toMatchObject({message: 'unexpected EOF'});
      const [, quiet] = await pair('quiet');
      caller.write(LOAN_GOOD);
      await expect(helper.unpack(view(), {...into('/etc'), descriptor: fdOf(agent), loan: {...offer(fdOf(quiet), 0), silenceMs: 10}}, async () => agent, never)).rejects.toMatchObject({kind: 'timeout', message: 'the request body stalled'});
    });

    test('that cannot be had comes by the other connection', async () => {
      const [caller, agent] = await pair('agent');
      const file = fs.openSync('/etc/passwd', 'r');
      caller.end(await archiveOf([{name: 'y', content: 'sent'}]));
      await helper.unpack(view(), {...into('/etc'), descriptor: fdOf(agent), loan: offer(file, 0)}, async (reads) => {
        expect(reads).toEqual({descriptor: true, loan: false});
        return agent;
      }, never);
      fs.closeSync(file);
      expect(fs.readFileSync(join(root, 'etc/y'), 'utf8')).toBe('sent');
    });
  });

  test('what is not there, what is no directory, what ends early', async () => {
    await expect(helper.stat(view(), '/nope', 'c', never)).rejects.toMatchObject({kind: 'notFound'});
    // The kernel would take it for the name before the NUL.
    await expect(helper.stat(view(), '/dir\0more', 'c', never)).rejects.toThrow(/^lstat .*: invalid argument$/);
    await expect(helper.pack(view(), '/nope', 'c', never)).rejects.toMatchObject({kind: 'notFound'});
    const one = async (): Promise<Readable> => Readable.from([await archiveOf([{name: 'x', content: 'x'}])]);
    await expect(helper.unpack(view(), into('/nope'), one, never)).rejects.toMatchObject({kind: 'notFound'});
    await expect(helper.unpack(view(), into('/etc/passwd'), one, never)).rejects.toMatchObject({kind: 'invalid', message: 'extraction point is not a directory'});
    await expect(helper.unpack(view(), into('/etc'), async () => Readable.from([packed('/etc', 'e').subarray(0, 700)]), never)).rejects.toMatchObject({message: 'unexpected EOF'});
  });

  test('who leaves, or is told to stop, leaves no process behind', async () => {
    fs.writeFileSync(join(root, 'dir/big'), '');
    fs.truncateSync(join(root, 'dir/big'), 2 ** 33);
    const left = await helper.pack(view(), '/dir', 'c', never);
    left.tar.once('data', () => left.tar.destroy());
    await new Promise((resolve) => left.tar.once('close', resolve));
    const stop = new AbortController();
    const stopped = await helper.pack(view(), '/dir', 'c', stop.signal);
    stopped.tar.once('data', () => stop.abort());
    await expect(stopped.tar.toArray()).rejects.toThrow();
    const endless = new Readable({read() { this.push(Buffer.alloc(65_536)); }});
    const stopIn = new AbortController();
    setTimeout(() => stopIn.abort(), 100);
    await expect(helper.unpack(view(), into('/dir'), async () => endless, stopIn.signal)).rejects.toThrow();
    endless.destroy();
    helper.close();
    const deadline = Date.now() + 10_000;
    while (childrenLeft().length && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 20));
    expect(childrenLeft()).toEqual([]);
  });
});
