/** Two gates stand before every option of a create request: the edge's table and the verb's. They must not contradict each other. */
import {CONFIG_OPTIONS, HOST_CONFIG_OPTIONS, type Support} from '../../lib/datacenter/create/options';
import {CONFIG, HOST_CONFIG, type Disposition} from '../../lib/docker/options';
import {DOCKER_SCHEMAS} from '../../lib/schema/docker.schema';
import answers from '../docker/schema/engine-1.51-answers.json';

/** What a client meets: taken, taken for some values only, or refused. */
const atTheEdge = (d: Disposition): unknown => (d === 'honoured' || 'ignored' in d ? 'taken' : d.neutral ? {only: d.neutral} : 'refused');
const atTheVerb = (s: Support): unknown => (s.row === 'only' ? {only: s.values} : s.row === 'refused' ? 'refused' : 'taken');
const sorted = (table: object): string[] => Object.keys(table).sort();

describe.each([
  ['Config', CONFIG, CONFIG_OPTIONS], ['HostConfig', HOST_CONFIG, HOST_CONFIG_OPTIONS],
] as const)('%s', (_where, edge, verb) => {
  test('both know the same options', () => expect(sorted(verb)).toEqual(sorted(edge)));

  test.each(sorted(edge))('%s means the same to both', (name) => {
    expect(atTheVerb(verb[name]!)).toEqual(atTheEdge(edge[name]!));
  });
});

test('every field that the API describes is in the tables', () => {
  const {definitions} = answers as unknown as {definitions: Record<string, {properties?: object; allOf?: {$ref?: string; properties?: object}[]}>};
  const fields = (name: string): string[] => {
    const definition = definitions[name]!;
    const parts = [definition, ...definition.allOf ?? []];
    return parts.flatMap((part) => ['$ref' in part && part.$ref ? fields(part.$ref.replace(/^.*\//, '')) : [], Object.keys(part.properties ?? {})].flat());
  };
  expect(fields('HostConfig').filter((name) => !(name in HOST_CONFIG))).toEqual([]);
  expect(fields('ContainerConfig').filter((name) => !(name in CONFIG))).toEqual([]);
});

test('every field whose type is checked has a row, and the other way round', () => {
  const {properties} = DOCKER_SCHEMAS.containerCreate as unknown as {properties: Record<string, {properties?: object}>};
  expect(sorted(properties).filter((name) => !(name in CONFIG))).toEqual(['HostConfig', 'NetworkingConfig']);
});
