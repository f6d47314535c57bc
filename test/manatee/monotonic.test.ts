import {MachineClock, monotonic} from '../../lib/manatee/monotonic';

test('what the machine was suspended for is counted, the noise of two clocks is not, and it never goes back', () => {
  let running = 1000;
  let uptime = 51_000;
  const clock = new MachineClock(() => running, () => uptime);
  expect(clock.nowMs()).toBe(1000);
  running += 100;
  uptime += 130;
  expect(clock.nowMs()).toBe(1100);
  running += 10;
  uptime += 60_000;
  expect(clock.nowMs()).toBe(1110 + 60_020);
  running += 10;
  uptime -= 30;
  expect(clock.nowMs()).toBe(1120 + 60_020);
});

test('sleep ends at its time or when it is aborted, and rejects neither way', async () => {
  const from = monotonic.nowMs();
  await monotonic.sleep(30);
  expect(monotonic.nowMs()).toBeGreaterThanOrEqual(from + 25);
  const abort = new AbortController();
  const slept = monotonic.sleep(3_600_000, abort.signal);
  abort.abort();
  await slept;
  await monotonic.sleep(3_600_000, abort.signal);
  await monotonic.sleep(-1);
  expect(monotonic.nowMs()).toBeLessThan(from + 60_000);
});
