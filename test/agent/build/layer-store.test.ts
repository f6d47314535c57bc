import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {LayerStore} from '../../../lib/agent/build/layer-store';

const id = (letter: string): string => `sha256:${letter.repeat(64)}`;

describe('the names of an engine\'s images, from its disk', () => {
  let root: string;
  beforeEach(() => { root = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-layer-store-')); });
  afterEach(() => fs.rmSync(root, {recursive: true, force: true}));
  const has = (...ids: string[]): void => {
    const content = path.join(root, 'image/overlay2/imagedb/content/sha256');
    fs.mkdirSync(content, {recursive: true});
    for (const one of ids) fs.writeFileSync(path.join(content, one.slice('sha256:'.length)), '{}');
  };
  const repositories = (text: string): void => {
    fs.mkdirSync(path.join(root, 'image/overlay2'), {recursive: true});
    fs.writeFileSync(path.join(root, 'image/overlay2/repositories.json'), text);
  };

  test('tags and digests, as dockerd 20.10 writes them; a name of an image that is not there is none', () => {
    has(id('a'), id('b'));
    repositories(JSON.stringify({Repositories: {
      busybox: {'busybox:latest': id('a'), [`busybox@${id('d')}`]: id('a')},
      '127.0.0.1:5000/app': {'127.0.0.1:5000/app:1': id('b'), '127.0.0.1:5000/app:2': id('c')},
    }}));
    const {tags, digests} = new LayerStore(root).names();
    expect([...tags]).toEqual([['busybox:latest', id('a')], ['127.0.0.1:5000/app:1', id('b')]]);
    expect([...digests]).toEqual([[id('a'), [`busybox@${id('d')}`]]]);
  });

  test('an engine that has named nothing yet has none; names that cannot be read are an error, not none', () => {
    expect(new LayerStore(root).names().tags.size).toBe(0);
    repositories('{}');
    expect(new LayerStore(root).names().tags.size).toBe(0);
    repositories('{"Repositories": {"busy');
    expect(() => new LayerStore(root).names()).toThrow('names of a build engine');
  });
});
