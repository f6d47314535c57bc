/**
 * Builds of a fleet: one node builds for all, whichever endpoint is asked; a FROM finds what only other nodes have; what is built is on two nodes before the client hears so, and
 * runs on each; and where the node that builds is lost, another goes on.
 */
import fs from 'node:fs';
import path from 'node:path';
import type {Inventory} from '../../lib/schema/agent';
import {busyboxArchive} from '../harness/busybox';
import {type Finished, NOTHING_LEFT, run} from '../harness/cetus';
import {startFleet, type TestFleet} from '../harness/fleet';
import {until} from '../harness/wait';

/** Debian's client, which has BuildKit in it. */
const DEBIANS = '/usr/bin/docker';
let fleet: TestFleet;
let builder: number;
let third: string;

beforeAll(async () => {
  fleet = await startFleet({nodes: 3, endpoints: 2});
  await fleet.ok(['load', '-i', await busyboxArchive()]);
}, 240_000);
afterAll(async () => {
  expect(await fleet?.destroy()).toEqual(NOTHING_LEFT);
}, 240_000);

let contexts = 0;
function context(files: Record<string, string>): string {
  const dir = path.join(fleet.dataDir, `context-${contexts += 1}`);
  fs.mkdirSync(dir);
  for (const [name, text] of Object.entries(files)) fs.writeFileSync(path.join(dir, name), text);
  return dir;
}
const classic = (endpoint: number, ...args: string[]): Promise<Finished> => fleet.at(endpoint).docker(['build', ...args], {env: {DOCKER_BUILDKIT: '0'}, timeoutMs: 120_000});
/** Its session and its build come to both endpoints in turn. */
const buildkit = (...args: string[]): Promise<Finished> =>
  run(DEBIANS, ['build', '--progress', 'plain', ...args], {env: {...process.env, DOCKER_HOST: fleet.host, DOCKER_BUILDKIT: '1', DOCKER_CONFIG: path.join(fleet.dataDir, 'docker-config')}, timeoutMs: 120_000});
async function ok(finished: Promise<Finished>): Promise<string> {
  const done = await finished;
  if (done.status !== 0) throw new Error(`a build ended with ${done.status}\n${done.stdout}\n${done.stderr}`);
  return `${done.stdout}\n${done.stderr}`;
}

const holders = async (reference: string): Promise<number[]> => {
  const id = await fleet.ok(['image', 'inspect', '-f', '{{.Id}}', reference]);
  const found = await Promise.all(fleet.nodes.map(async ({number, name}) => {
    const inventory = await fleet.admin<Inventory>(`/v1/nodes/${name}/inventory`).catch(() => undefined);
    return inventory?.images.includes(id) ? [number] : [];
  }));
  return found.flat();
};
const said = (endpoint: number, image: string, node: number): Promise<string> => fleet.at(endpoint).ok(['run', '--rm', '-e', `constraint:node==node-${node}`, image]);
/** Nodes with an engine's directory. */
const building = (): number[] => fleet.nodes.map(({number}) => number).filter((number) => fs.existsSync(path.join(fleet.dirOf(number), 'agent', 'build')) && fs.readdirSync(path.join(fleet.dirOf(number), 'agent', 'build')).length > 0);

test('asked at one endpoint, out of the cache at the other; on two nodes at once, and good on all', async () => {
  const dir = context({Dockerfile: 'FROM busybox\nRUN echo first > /first\nCMD cat /first\n'});
  await ok(classic(1, '-t', 'first', dir));
  expect((await holders('first')).length).toBeGreaterThanOrEqual(2);
  expect(await ok(classic(2, '-t', 'first:again', dir))).toContain('Using cache');
  [builder] = building() as [number];
  expect(building()).toEqual([builder]);
  for (const {number} of fleet.nodes) expect(await said(1 + (number % 2), 'first', number)).toBe('first');
}, 240_000);

test('BuildKit: session, secret and build over both endpoints', async () => {
  const dir = context({word: 'sesame', Dockerfile: 'FROM first\nRUN --mount=type=secret,id=word cat /run/secrets/word > /word\nCMD cat /first /word\n'});
  for (const n of [1, 2, 3]) await ok(buildkit('-t', `kit:${n}`, '--build-arg', `N=${n}`, '--secret', `id=word,src=${path.join(dir, 'word')}`, dir));
  for (const {number} of fleet.nodes) expect(await said(1 + (number % 2), `kit:${number}`, number)).toBe('first\nsesame');
}, 240_000);

test('the node that builds is lost: another does, out of what is left, and the first has it again afterwards', async () => {
  await fleet.powerOff(builder);
  const dir = context({Dockerfile: 'FROM first\nRUN echo second > /second\nCMD cat /first /second\n'});
  await until('another node to build', async () => (await classic(2, '-t', 'second', dir)).status === 0, 120_000);
  const others = fleet.nodes.map(({number}) => number).filter((number) => number !== builder);
  expect(await holders('second')).toEqual(others);
  expect(building().length).toBe(2);
  for (const number of others) expect(await said(1, 'second', number)).toBe('first\nsecond');

  await fleet.powerOn(builder);
  await until('the node to be back', async () => (await fleet.admin<{liveness: string}[]>('/v1/nodes')).every(({liveness}) => liveness === 'alive'), 120_000);
  // Never there, and in no registry.
  expect(await holders('second')).not.toContain(builder);
  third = context({Dockerfile: 'FROM second\nRUN echo third > /third\nCMD cat /first /second /third\n'});
  await ok(classic(1, '-t', 'third', third));
  expect(await holders('third')).toContain(builder);
  for (const {number} of fleet.nodes) expect(await said(2, 'third', number)).toBe('first\nsecond\nthird');
}, 300_000);

test('a node that is cordoned does not build while another can', async () => {
  const again = (): Promise<string> => ok(classic(1, '-t', 'third', third));
  expect(await again()).toContain('Using cache');
  expect((await fleet.cetus(['node', 'cordon', `node-${builder}`, '--reason', 'a loud fan'])).status).toBe(0);
  expect(await again()).not.toContain('Using cache');
  expect((await fleet.cetus(['node', 'uncordon', `node-${builder}`])).status).toBe(0);
}, 240_000);
