import {repeat} from '../../lib/base/background';
import {systemClock} from '../../lib/base/clock';

test('a failing pass is told and the next one comes; nothing is told of what the stop broke', async () => {
  const stop = new AbortController();
  const told: string[] = [];
  let passes = 0;
  await repeat({
    clock: systemClock, signal: stop.signal, pauseMs: 1, failed: (err) => told.push((err as Error).message),
    work: async () => {
      passes += 1;
      if (passes === 3) stop.abort();
      if (passes !== 2) throw new Error(`pass ${passes}`);
    },
  });
  expect(passes).toBe(3);
  expect(told).toEqual(['pass 1']);
});

test('the stop ends a pause at once, and what is stopped already does nothing', async () => {
  const stop = new AbortController();
  let passes = 0;
  const running = repeat({clock: systemClock, signal: stop.signal, pauseMs: 60_000, failed: fail, work: async () => { passes += 1; }});
  setImmediate(() => stop.abort());
  await running;
  await repeat({clock: systemClock, signal: stop.signal, pauseMs: 0, failed: fail, work: async () => { passes += 1; }});
  expect(passes).toBe(1);
});

function fail(err: unknown): never {
  throw err;
}
