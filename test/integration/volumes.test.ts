/**
 * Volumes and binds that a container rewrites while the node mounts or fills them: nothing leads to a file of the node. Real mounts; the
 * container's part is played by the test, in the same directories.
 */
import {existsSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {Volumes} from '../../lib/agent/volumes/volumes';
import type {ContainerSpec, ResolvedMount} from '../../lib/schema/container';

let dir: string;
let volumes: Volumes;
const spec = (...mounts: ResolvedMount[]): ContainerSpec => ({mounts}) as ContainerSpec;
const mountsBelow = (): string[] => readFileSync('/proc/self/mountinfo', 'utf8').split('\n').filter((line) => line.includes(` ${dir}/`));

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'cetus-volumes-'));
  for (const name of ['data/tmp', 'srv/mine', 'outside']) mkdirSync(join(dir, name), {recursive: true});
  writeFileSync(join(dir, 'outside', 'secret'), 'of the node');
  volumes = new Volumes(join(dir, 'data'));
});

afterEach(() => {
  expect(mountsBelow()).toEqual([]);
  expect(readdirSync(join(dir, 'data', 'tmp'))).toEqual([]);
  expect(readdirSync(join(dir, 'outside'))).toEqual(['secret']);
  rmSync(dir, {recursive: true});
});

const bind = (source: string, createSource = false): ResolvedMount =>
  ({type: 'bind', source: join(dir, source), destination: '/m', readOnly: false, propagation: '', createSource, within: join(dir, 'srv')});
const part = (subpath: string): ResolvedMount => ({type: 'volume', volumeId: 'v', name: 'v', destination: '/m', readOnly: false, noCopy: true, anonymous: false, subpath});

describe.each([['a bind below an allowed directory', 'srv', () => bind('srv/mine')], ['a part of a volume', 'data/volumes/v/_data', () => part('mine')]])('%s', (_, root, mountOf) => {
  let mount: ResolvedMount;
  beforeEach(async () => {
    mount = mountOf();
    await volumes.ensure('v', {});
    mkdirSync(join(dir, root, 'mine'), {recursive: true});
    writeFileSync(join(dir, root, 'mine', 'file'), 'of the container');
  });

  const replace = (): void => {
    renameSync(join(dir, root, 'mine'), join(dir, root, 'former'));
    symlinkSync(join(dir, 'outside'), join(dir, root, 'mine'));
  };

  test('is what it was when it was looked up, though a link has taken its place', async () => {
    const {mounts: [found], release} = await volumes.sources(spec(mount));
    replace();
    expect(readFileSync(join(found!.source, 'file'), 'utf8')).toBe('of the container');
    expect(existsSync(join(found!.source, 'secret'))).toBe(false);
    await release();
  });

  test('is refused where a link leads out', async () => {
    replace();
    await expect(volumes.sources(spec(mount))).rejects.toThrow(/is not allowed on this datacenter|leads out of the volume/);
  });

  test('is followed where a link stays within', async () => {
    renameSync(join(dir, root, 'mine'), join(dir, root, 'former'));
    symlinkSync('former', join(dir, root, 'mine'));
    const {mounts: [found], release} = await volumes.sources(spec(mount));
    expect(readdirSync(found!.source)).toEqual(['file']);
    await release();
  });

  test('is let go of where another mount of the container is refused, and after a kill', async () => {
    await expect(volumes.sources(spec(mount, part('missing')))).rejects.toThrow('cannot access path missing in the volume');
    expect(mountsBelow()).toEqual([]);
    await volumes.sources(spec(mount));
    expect(mountsBelow()).toHaveLength(1);
    await new Volumes(join(dir, 'data')).sweep();
    expect(readdirSync(join(dir, root, 'mine'))).toEqual(['file']);
  });
});

test('a file below an allowed directory', async () => {
  writeFileSync(join(dir, 'srv', 'file'), 'x');
  const {mounts: [found], release} = await volumes.sources(spec(bind('srv/file')));
  expect(readFileSync(found!.source, 'utf8')).toBe('x');
  await release();
  expect(readFileSync(join(dir, 'srv', 'file'), 'utf8')).toBe('x');
});

test('a missing bind source is not made where a link leads out', async () => {
  symlinkSync(join(dir, 'outside'), join(dir, 'srv', 'link'));
  await expect(volumes.prepare(spec(bind('srv/link/new', true)), async () => [])).rejects.toMatchObject({kind: 'forbidden'});
  await volumes.prepare(spec(bind('srv/really/new', true)), async () => []);
  expect(lstatSync(join(dir, 'srv/really/new')).isDirectory()).toBe(true);
});

test('what an image brings into a volume goes nowhere else, though a container of the volume puts links in its way', async () => {
  const FILES = 3000;
  const image = join(dir, 'image', 'm', 'x');
  mkdirSync(image, {recursive: true});
  for (let n = 0; n < FILES; n += 1) writeFileSync(join(image, `f${n}`), '');
  const data = (await volumes.ensure('v', {})).mountpoint;
  let filled = false;
  const attack = (async () => {
    while (!filled && !existsSync(join(data, 'x'))) await new Promise(setImmediate);
    renameSync(join(data, 'x'), join(data, 'y'));
    symlinkSync(join(dir, 'outside'), join(data, 'x'));
  })();
  const mount: ResolvedMount = {type: 'volume', volumeId: 'v', name: 'v', destination: '/m', readOnly: false, noCopy: false, anonymous: false};
  await volumes.prepare(spec(mount), async () => [{type: 'bind', source: join(dir, 'image'), options: ['rbind', 'ro']}]).finally(() => (filled = true));
  await attack;
  expect(readdirSync(join(data, 'y'))).toHaveLength(FILES);
  expect(readdirSync(join(data, '..'))).toEqual(['_data']);
});
