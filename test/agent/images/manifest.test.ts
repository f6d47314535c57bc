import fc from 'fast-check';
import {chainIds, MEDIA, manifestGcLabels, parseConfig, parseManifest, sha256} from '../../../lib/agent/images/manifest';

const HEX = 'a'.repeat(64);
const config = {mediaType: MEDIA.dockerConfig, size: 3, digest: `sha256:${HEX}`};
const layer = {mediaType: MEDIA.dockerLayerGzip, size: 5, digest: `sha256:${'b'.repeat(64)}`};
const bytes = (value: unknown): Buffer => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value));
const parse = (value: unknown, type: string = MEDIA.dockerManifest) => parseManifest(bytes(value), type, {layers: 3});

describe('manifests', () => {
  test('an image, an index', () => {
    expect(parse({schemaVersion: 2, config, layers: [layer]})).toEqual({kind: 'manifest', manifest: {schemaVersion: 2, mediaType: MEDIA.dockerManifest, config, layers: [layer]}});
    const platform = {os: 'linux', architecture: 'amd64'};
    expect(parse({schemaVersion: 2, manifests: [{...layer, platform, urls: ['http://evil']}]}, MEDIA.ociIndex)).toEqual(
      {kind: 'index', index: {schemaVersion: 2, mediaType: MEDIA.ociIndex, manifests: [{...layer, platform}]}});
  });

  test.each<[string, unknown, string]>([
    ['not JSON', 'nonsense', 'invalid'],
    ['a list', [], 'invalid'],
    ['both an index and an image', {schemaVersion: 2, manifests: [], layers: []}, 'invalid'],
    ['schema 1', {schemaVersion: 1}, 'unsupported'],
    ['no config', {schemaVersion: 2, layers: []}, 'invalid'],
    ['no layers', {schemaVersion: 2, config}, 'invalid'],
    ['too many layers', {schemaVersion: 2, config, layers: Array.from({length: 4}, () => layer)}, 'invalid'],
    ['a negative size', {schemaVersion: 2, config, layers: [{...layer, size: -1}]}, 'invalid'],
    ['a size that is no number', {schemaVersion: 2, config, layers: [{...layer, size: '5'}]}, 'invalid'],
    ['a digest that leads elsewhere', {schemaVersion: 2, config, layers: [{...layer, digest: 'sha256:../../x'}]}, 'invalid'],
    ['a foreign layer', {schemaVersion: 2, config, layers: [{...layer, mediaType: 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip'}]}, 'unsupported'],
    ['an artifact', {schemaVersion: 2, config: {...config, mediaType: 'application/vnd.cncf.helm.config.v1+json'}, layers: []}, 'unsupported'],
    ['another kind of document', {schemaVersion: 2, mediaType: 'application/json+x', config, layers: []}, 'unsupported'],
  ])('%s is refused', (_name, value, kind) => {
    expect(() => parse(value)).toThrow(expect.objectContaining({kind}));
  });

  test('any JSON is a manifest or an error of ours', () => {
    fc.assert(fc.property(fc.oneof(fc.jsonValue(), fc.record({schemaVersion: fc.constant(2), config: fc.jsonValue(), layers: fc.array(fc.jsonValue())})), (value) => {
      expect(() => parse(value)).toThrow(expect.objectContaining({name: 'CetusError'}));
    }));
  });

  test('a config must have as many diff ids as there are layers', () => {
    const document = {architecture: 'amd64', os: 'linux', rootfs: {type: 'layers', diff_ids: [layer.digest]}};
    expect(parseConfig(bytes(document), 1).rootfs.diff_ids).toEqual([layer.digest]);
    for (const [value, layers] of [[document, 2], [document, 0], [{...document, rootfs: {diff_ids: ['x']}}, 1], [{...document, os: 1}, 1], [{...document, config: 'x'}, 1], [{...document, rootfs: null}, 1]] as const)
      expect(() => parseConfig(bytes(value), layers)).toThrow(expect.objectContaining({kind: 'invalid'}));
  });

  const image = (more: object): Buffer => bytes({architecture: 'amd64', os: 'linux', rootfs: {type: 'layers', diff_ids: []}, ...more});

  test.each([
    [{config: {User: 5}}, /config.User must be string,null/], [{config: {Env: {A: 'B'}}}, /config.Env must be array,null/], [{config: {Env: ['A=B', null]}}, /config.Env.1 must be string/],
    [{config: {Labels: {a: 5}}}, /config.Labels.a must be string/], [{config: {Healthcheck: 'x'}}, /config.Healthcheck must be object,null/], [{config: {Volumes: ['/x']}}, /config.Volumes must be object,null/],
    [{config: {WorkingDir: '/a\0b'}}, /NUL/], [{history: [null]}, /history.0 must be object/], [{history: 'x'}, /history must be array,null/], [{created: 5}, /created must be string,null/],
    [{created: 'yesterday'}, /"yesterday" is no time/], [{history: [{created: 'x'}]}, /"x" is no time/], [{os: 5}, /os must be string/],
  ])('a config of wrong types is refused: %j', (more, message) => {
    expect(() => parseConfig(image(more), 0)).toThrow(expect.objectContaining({kind: 'invalid', message: expect.stringMatching(message) as string}));
  });

  test('what Go takes is taken: nulls, strings for lists, what nobody knows', () => {
    const nulls = {created: null, author: null, history: null, config: null, container_config: {Hostname: 5}, moby: {'buildkit.buildinfo.v1': 'x'}};
    expect(() => parseConfig(image(nulls), 0)).not.toThrow();
    expect(() => parseConfig(image({created: '0001-01-01T00:00:00Z', history: [{created: '2024-05-01T10:00:00.123456789+02:00', created_by: 'RUN printf "\\u0000\\\\u0000"', empty_layer: true}, {created: '', comment: null}]}), 0)).not.toThrow();
    const {config: found} = parseConfig(image({config: {Entrypoint: '/run.sh', Cmd: null, Shell: ['sh'], Env: null, ArgsEscaped: true, Unknown: 1}}), 0);
    expect(found).toMatchObject({Entrypoint: ['/run.sh'], Cmd: null, Shell: ['sh'], Unknown: 1});
  });

  test('chain ids as the image specification defines them', () => {
    expect(chainIds([])).toEqual([]);
    expect(chainIds(['sha256:a', 'sha256:b', 'sha256:c'])).toEqual(['sha256:a', sha256('sha256:a sha256:b'), sha256(`${sha256('sha256:a sha256:b')} sha256:c`)]);
  });

  test('the collector is told of config and every layer', () => {
    expect(Object.values(manifestGcLabels({schemaVersion: 2, mediaType: MEDIA.dockerManifest, config, layers: [layer]}))).toEqual([config.digest, layer.digest]);
  });
});
