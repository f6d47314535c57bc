/**
 * The same requests, good and bad, to the distribution's dockerd and to Cetus: statuses, messages, headers and shapes are the same, or a row of
 * test/differential/divergences.ts says why not. CETUS_DIFFERENTIAL=noun,noun plays some scripts only, and prints every difference.
 * What is created although it is odd is also started with CETUS_LONG=1 only (`make test-long`): 160 starts in each engine are half of the time.
 */
import fs from 'node:fs';
import {compare, type Difference} from '../differential/compare';
import {DIVERGENCES, type Divergence, explains, OF_A_FLEET} from '../differential/divergences';
import {type Outcome, Player} from '../differential/run';
import {PROGRAMME, SCRIPTS} from '../differential/index';
import {type Restarts, restartsOf} from '../differential/restarts';
import type {Script} from '../differential/step';
import {busyboxArchive} from '../harness/busybox';
import {NOTHING_LEFT, startCetus, type TestDatacenter} from '../harness/cetus';
import {startDockerd, type TestDockerd} from '../harness/dockerd';
import {buildImage, buildLayer, busyboxLayer, pushImage} from '../harness/images';
import {startRegistry, type TestRegistry} from '../harness/registry';
import {LONG} from '../harness/long';
import {type Endpoint, send} from '../harness/requests';

/** More than a thousand requests to each of two engines, on a machine that others keep busy. */
const PLAY_TIMEOUT_MS = 900_000;

/** One machine cannot be at the same address in two networks. */
const SUBNETS: Record<string, string> = {docker: '10.214.7', cetus: '10.215.7'};
/** Of the other steps none needs these. */
const leftOut = (noun: string, name: string): boolean => !LONG && noun === 'create' && name.endsWith(', started');
const LEFT_OUT = SCRIPTS.flatMap(({noun, steps}) => steps.filter(({name}) => leftOut(noun, name)).map(({name}) => `${noun}: ${name}`));
const ONLY = process.env['CETUS_DIFFERENTIAL'] ? process.env['CETUS_DIFFERENTIAL'].split(',') : undefined;

/** A seventh run that lasts longer than the ten seconds after which the pauses begin anew. */
const SIX_SHORT_ONE_LONG = 'n=$(cat /n 2>/dev/null || echo 0); echo $((n + 1)) > /n; [ $n = 6 ] && sleep 11; exit 3';

interface Side { name: string; endpoint: Endpoint; registry: TestRegistry; outcomes: Outcome[][]; restarts: Restarts[] }
let cetus: TestDatacenter;
let dockerd: TestDockerd;
let sides: Side[];
let differences: Difference[];

beforeAll(async () => {
  [cetus, dockerd] = await Promise.all([startCetus(), startDockerd()]);
  const {hostname, port} = new URL(cetus.running.listen[0]);
  const endpoints: [string, Endpoint][] = [['docker', {socketPath: dockerd.socketPath}], ['cetus', {host: hostname, port: Number(port)}]];
  const image = buildImage([await busyboxLayer('gzip'), await buildLayer([{name: 'pulled', content: 'from a registry'}])]);
  // A registry each: what one engine has pushed, the other would not push again.
  sides = await Promise.all(endpoints.map(async ([name, endpoint]) => ({name, endpoint, registry: await startRegistry(), outcomes: [], restarts: []})));
  await Promise.all(sides.map(async ({registry, endpoint}) => {
    await pushImage(registry.url, 'public/box', ['1'], image);
    const loaded = await send(endpoint, {method: 'POST', path: '/images/load?quiet=1', headers: {'Content-Type': 'application/x-tar'}, body: fs.readFileSync(await busyboxArchive())});
    expect(loaded.status).toBe(200);
  }));
  const wanted = (list: Script[]): Script[] => list.filter((s) => !ONLY || ONLY.includes(s.noun))
    .map(({noun, steps}) => ({noun, steps: steps.filter(({name}) => !leftOut(noun, name))}));
  await Promise.all(sides.map(async (side) => {
    const play = async (list: Script[]): Promise<Outcome[][]> => {
      const player = new Player(side.endpoint, {registry: side.registry.host, boxdigest: image.digest, subnet: SUBNETS[side.name]!});
      const outcomes: Outcome[][] = [];
      for (const script of wanted(list)) outcomes.push(await player.play(script));
      return outcomes;
    };
    // Alone: dockerd remembers its last 256 events, and a pause is measured up to the end of the start that follows it.
    if (!ONLY || ONLY.includes('restarts')) {
      side.restarts = await Promise.all([
        restartsOf(side.endpoint, 'd-failing', SIX_SHORT_ONE_LONG, {Name: 'on-failure', MaximumRetryCount: 8}),
        restartsOf(side.endpoint, 'd-succeeding', 'exit 0', {Name: 'on-failure'}),
      ]);
    }
    const first = await play(PROGRAMME.first);
    side.outcomes = [...first, ...(await Promise.all(PROGRAMME.then.map(play))).flat()];
  }));
  differences = wanted([...SCRIPTS]).flatMap(({noun, steps}, s) => steps.flatMap((_, n) => compare(noun, sides[0]!.outcomes[s]![n]!, sides[1]!.outcomes[s]![n]!)));
}, PLAY_TIMEOUT_MS);

afterAll(async () => {
  await Promise.all((sides ?? []).map(({registry}) => registry.stop()));
  const [left, ofDockerd] = await Promise.all([cetus?.destroy(), dockerd?.destroy()]);
  expect({left, ofDockerd}).toEqual({left: NOTHING_LEFT, ofDockerd: []});
}, PLAY_TIMEOUT_MS);

const asked = (): Outcome[] => sides[0]!.outcomes.flat().filter((o) => !o.skipped);
const shown = ({noun, step, at, docker, cetus: ours}: Difference): string => `${noun}: ${step} · ${at}\n    dockerd ${JSON.stringify(docker)}\n    cetus   ${JSON.stringify(ours)}`;

/** Where the time goes. */
function slow(): void {
  for (const {name, outcomes} of sides) {
    const all = outcomes.flat().sort((a, b) => b.ms - a.ms);
    process.stdout.write(`${name}: ${Math.round(all.reduce((n, o) => n + o.ms, 0))} ms; ${all.slice(0, 14).map((o) => `${o.step.name} ${Math.round(o.ms)}`).join(', ')}\n`);
  }
}

test('every difference is explained', () => {
  const unexplained = differences.filter((d) => ![...DIVERGENCES, ...(cetus.isFleet ? OF_A_FLEET : [])].some((row) => explains(row, d)));
  if (process.env['CETUS_DIFFERENCES']) slow();
  if (process.env['CETUS_DIFFERENCES']) fs.writeFileSync(process.env['CETUS_DIFFERENCES'], unexplained.map(shown).join('\n'));
  if (unexplained.length) throw new Error(`${unexplained.length} differences without a reason\n${unexplained.map(shown).join('\n')}`);
});

test('every explanation is needed', () => {
  const ofLeftOut = ({step}: Divergence): boolean => LEFT_OUT.some((name) => (typeof step === 'string' ? step === name : step?.test(name)));
  const idle = DIVERGENCES.filter((row) => !ONLY && !ofLeftOut(row) && !differences.some((d) => explains(row, d)));
  expect(idle.map((row) => row.what)).toEqual([]);
});

/** Upper bounds are loose: a start takes its time on a busy machine. Only that of the pause after the long run must tell 100 ms from the 6400 that would follow. */
test('restarts: pauses that double from 100 ms, begin anew after ten seconds of running, and are counted', () => {
  if (ONLY && !ONLY.includes('restarts')) return;
  for (const {name, restarts: [failing, succeeding]} of sides) {
    expect([name, succeeding]).toEqual([name, {pausesMs: [], count: 0, exitCode: 0, status: 'exited'}]);
    expect([name, failing]).toMatchObject([name, {count: 8, exitCode: 3, status: 'exited'}]);
    const {pausesMs} = failing!;
    const least = [100, 200, 400, 800, 1600, 3200, 100, 200];
    expect([name, pausesMs.length, pausesMs.filter((ms, n) => ms < least[n]!)]).toEqual([name, least.length, []]);
    expect(pausesMs[6]).toBeLessThan(6_000);
  }
});

test('at least 300 requests, half of them mistakes', () => {
  const mistakes = asked().filter((o) => o.step.mistake);
  const diverging = new Set(differences.map((d) => `${d.noun}: ${d.step}`)).size;
  process.stdout.write(`differential: ${asked().length} requests, ${mistakes.length} of them mistakes; ${asked().length - diverging} answered alike, ${diverging} as ${DIVERGENCES.length} rows explain\n`);
  if (ONLY) return;
  expect(asked().length).toBeGreaterThanOrEqual(300);
  expect(mistakes.length * 2).toBeGreaterThanOrEqual(asked().length);
});
