import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {gzipSync} from 'node:zlib';
import {LayerStore} from '../../../lib/agent/build/layer-store';
import {tarBytes, tarLength} from '../../../lib/agent/build/tar-split';

let dir: string;
beforeEach(() => { dir = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-unit-build-')); });
afterEach(() => fs.rmSync(dir, {recursive: true, force: true}));

function recipe(...entries: object[]): string {
  const file = path.join(dir, 'recipe.gz');
  fs.writeFileSync(file, gzipSync(entries.map((entry) => `${JSON.stringify(entry)}\n`).join('')));
  return file;
}
const segment = (text: string): object => ({type: 2, payload: Buffer.from(text).toString('base64'), position: 0});
const file = (name: string, size: number): object => ({type: 1, name, size, payload: null, position: 1});
async function all(of: AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of of) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}
function layer(files: Record<string, string>): string {
  const root = path.join(dir, 'layer');
  for (const [name, text] of Object.entries(files)) {
    fs.mkdirSync(path.dirname(path.join(root, name)), {recursive: true});
    fs.writeFileSync(path.join(root, name), text);
  }
  return root;
}

describe('a layer from its recipe', () => {
  it('is headers and contents in their order', async () => {
    const root = layer({'a/b': 'content', empty: '', 'näme': 'x'});
    const made = recipe(segment('<b>'), file('a/b', 7), segment('<empty>'), file('empty', 0), segment('<n>'), {type: 1, name: 'n\ufffdme', name_raw: Buffer.from('näme').toString('base64'), size: 1}, segment('<end>'));
    expect(await all(tarBytes(made, root))).toBe('<b>content<empty><n>x<end>');
    expect(await tarLength(made)).toBe(26);
  });

  it.each([
    ['a name that climbs', '../outside'], ['a link to a file', 'link'], ['a link to a directory', 'linked/outside'], ['a directory', 'a'],
  ])('%s is not read', async (_what, name) => {
    const root = layer({'a/b': 'content'});
    fs.writeFileSync(path.join(dir, 'outside'), 'secret');
    fs.symlinkSync(path.join(dir, 'outside'), path.join(root, 'link'));
    fs.symlinkSync(dir, path.join(root, 'linked'));
    await expect(all(tarBytes(recipe(file(name, 6)), root))).rejects.toThrow();
  });

  it('a FIFO in a file\'s place holds nobody up', async () => {
    const root = layer({});
    fs.mkdirSync(root, {recursive: true});
    (await import('node:child_process')).execFileSync('mkfifo', [path.join(root, 'pipe')]);
    await expect(all(tarBytes(recipe(file('pipe', 6)), root))).rejects.toThrow('is no file');
  });

  it('a file that has shrunk is an error', async () => {
    await expect(all(tarBytes(recipe(file('a', 6)), layer({a: 'xx'})))).rejects.toThrow('shorter than it was');
  });
});

describe('layers lent to an engine that is stopped', () => {
  const digest = (n: number): string => `sha256:${String(n).repeat(64)}`;
  const lent = (n: number, parent: number | undefined): Parameters<LayerStore['lend']>[0][number] => ({chainId: digest(n), diffId: digest(n + 4), parent: parent === undefined ? '' : digest(parent), size: n, directory: path.join(dir, 'layer')});

  it('are links with the list of all that lies below them', () => {
    layer({file: 'x'});
    const store = new LayerStore(path.join(dir, 'data'));
    expect(store.has(digest(1))).toBe(false);
    store.lend([lent(1, undefined), lent(2, 1), lent(3, 2)]);
    expect([1, 2, 3].map((n) => store.has(digest(n)))).toEqual([true, true, true]);
    expect(fs.readFileSync(path.join(store.directory(digest(3)), 'file'), 'utf8')).toBe('x');
    const lower = fs.readFileSync(path.join(dir, 'data', 'overlay2', '3'.repeat(64), 'lower'), 'utf8').split(':');
    expect(lower).toHaveLength(2);
    for (const link of lower) expect(fs.readFileSync(path.join(dir, 'data', 'overlay2', link, 'file'), 'utf8')).toBe('x');
    expect(fs.readFileSync(path.join(dir, 'data', 'image', 'overlay2', 'layerdb', 'sha256', '3'.repeat(64), 'parent'), 'utf8')).toBe(digest(2));
    expect(store.isWhole()).toBe(true);
  });

  it('that are gone are noticed', () => {
    layer({file: 'x'});
    const store = new LayerStore(path.join(dir, 'data'));
    store.lend([lent(1, undefined)]);
    fs.rmSync(path.join(dir, 'layer'), {recursive: true});
    expect(store.isWhole()).toBe(false);
  });
});
