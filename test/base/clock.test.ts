import {systemClock} from '../../lib/base/clock';

beforeEach(() => jest.useFakeTimers());
afterEach(() => jest.useRealTimers());

const DAY_MS = 24 * 3600_000;

test.each([1, 5, 2 ** 31 - 1, 2 ** 31, 30 * DAY_MS, 365 * DAY_MS])('a sleep of %d ms is as long as that', async (ms) => {
  const over = jest.fn();
  const stop = new AbortController();
  void systemClock.sleep(ms, stop.signal).then(over);
  await jest.advanceTimersByTimeAsync(ms - 1);
  expect(over).not.toHaveBeenCalled();
  await jest.advanceTimersByTimeAsync(1);
  expect(over).toHaveBeenCalledTimes(1);
  expect(jest.getTimerCount()).toBe(0);
});

test('a sleep for ever ends with its signal, however long it has lasted, and leaves no timer', async () => {
  const stop = new AbortController();
  const slept = systemClock.sleep(Infinity, stop.signal).then(() => 'over', (err: Error) => err.message);
  await jest.advanceTimersByTimeAsync(100 * DAY_MS);
  stop.abort(new Error('enough'));
  expect(await slept).toBe('enough');
  expect(jest.getTimerCount()).toBe(0);
});
