import type {Clock} from '../../lib/base/clock';
import {systemClock} from '../../lib/base/clock';
import {ALL} from '../../lib/moray/filter';
import {createMemoryMoray} from '../../lib/moray/memory';
import {ANIMALS, conformance, rejection, take} from './conformance';

conformance(async () => createMemoryMoray());

test('a cursor older than the retention is stale, never a gap', async () => {
  let now = 1_000_000;
  const clock: Clock = {...systemClock, now: () => now};
  const moray = createMemoryMoray({clock});
  await moray.open({...ANIMALS, tombstoneRetentionMs: 1000});
  const stop = new AbortController();
  const changes = await moray.watch('animals', ALL, {signal: stop.signal});
  const slow = await moray.watch('animals', ALL, {signal: stop.signal});
  await moray.put('animals', 'a', {});
  await moray.put('animals', 'b', {});
  const [first, second] = await take(changes, 2);
  now += 5000;
  await moray.put('animals', 'c', {});
  await rejection(moray.watch('animals', ALL, {since: first!.cursor}), 'stale');
  expect((await take(await moray.watch('animals', ALL, {since: second!.cursor, signal: stop.signal}), 1))[0]!.key).toBe('c');
  await rejection(take(slow, 1), 'stale');
  stop.abort();
  await moray.close();
});

test('what a caller holds is not what the store holds', async () => {
  const moray = createMemoryMoray();
  await moray.open(ANIMALS);
  const value = {names: ['a']};
  await moray.put('animals', 'a', value);
  value.names.push('b');
  const got = await moray.get<{names: string[]}>('animals', 'a');
  expect(got.value.names).toEqual(['a']);
  got.value.names.push('c');
  expect((await moray.get<{names: string[]}>('animals', 'a')).value.names).toEqual(['a']);
  await moray.close();
});
