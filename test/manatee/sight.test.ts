/** How long a view may be decided from: until something is said to have changed, and for a bounded time. */
import type {ClusterView, Monotonic} from '../../lib/manatee/coordination';
import {Sight} from '../../lib/manatee/sight';

const KEPT_MS = 100;
const viewOf = (version: number): ClusterView => ({state: null, version, peers: [], rebuild: []});

function sightOf(): {sight: Sight; clock: {ms: number}; looks(): number; hold(): () => void; answer(view: ClusterView | null | undefined): void} {
  const clock = {ms: 0};
  const monotonic: Monotonic = {nowMs: () => clock.ms, sleep: () => Promise.reject(new Error('nobody sleeps here'))};
  let looks = 0;
  let held: Promise<void> | undefined;
  let said: ClusterView | null | undefined;
  const sight = new Sight(async () => {
    looks += 1;
    const mine = said === undefined ? viewOf(looks) : said;
    await held;
    return mine;
  }, monotonic, KEPT_MS);
  return {
    sight, clock, looks: () => looks,
    hold() {
      let release!: () => void;
      held = new Promise((resolve) => { release = resolve; });
      return () => { held = undefined; release(); };
    },
    answer: (view) => { said = view; },
  };
}

test('asks once while nothing is said to have changed, and again when it has', async () => {
  const {sight, looks} = sightOf();
  expect(await sight.view()).toEqual(viewOf(1));
  expect(await sight.view()).toEqual(viewOf(1));
  sight.hint();
  expect(await sight.view()).toEqual(viewOf(2));
  expect(looks()).toBe(2);
});

test('asks again after its time, counted from the question', async () => {
  const {sight, clock, hold} = sightOf();
  const release = hold();
  const first = sight.view();
  clock.ms = KEPT_MS - 1;
  release();
  expect(await first).toEqual(viewOf(1));
  expect(await sight.view()).toEqual(viewOf(1));
  clock.ms = KEPT_MS;
  expect(await sight.view()).toEqual(viewOf(2));
});

test('what changes while it is asked for is asked for again', async () => {
  const {sight, hold} = sightOf();
  const release = hold();
  const first = sight.view();
  sight.hint();
  release();
  expect(await first).toEqual(viewOf(1));
  expect(await sight.view()).toEqual(viewOf(2));
});

test('an older answer that comes late does not replace a newer one', async () => {
  const {sight, hold} = sightOf();
  const release = hold();
  const older = sight.view();
  sight.hint();
  const newer = sight.view();
  release();
  expect([await older, await newer]).toEqual([viewOf(1), viewOf(2)]);
  expect(await sight.view()).toEqual(viewOf(2));
});

test('a servers\' silence is not kept', async () => {
  const {sight, answer} = sightOf();
  answer(null);
  expect(await sight.view()).toBeNull();
  answer(undefined);
  expect(await sight.view()).toEqual(viewOf(2));
});

test('what we wrote is good for one step, and looked at behind it', async () => {
  const {sight, looks} = sightOf();
  await sight.view();
  sight.wrote(viewOf(70));
  expect(await sight.view()).toEqual(viewOf(70));
  sight.ahead();
  sight.ahead();
  expect(looks()).toBe(2);
  expect(await sight.view()).toEqual(viewOf(2));
  expect(looks()).toBe(2);
});

test('looking ahead asks nothing where nothing has changed', async () => {
  const {sight, looks} = sightOf();
  await sight.view();
  sight.ahead();
  expect(looks()).toBe(1);
});
