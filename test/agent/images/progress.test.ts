import {LineChannel, withLines} from '../../../lib/agent/images/channel';
import {bar, progressLine, secondsLine, statusLine, Throttle} from '../../../lib/agent/images/progress';
import {systemClock} from '../../../lib/base/clock';
import type {ProgressMessage} from '../../../lib/schema/docker';

describe('progress lines', () => {
  // As jsonmessage.JSONProgress.String formats for a width of 200: the numbers are padded by %8v.
  test.each([
    [0, 0, ''],
    [512, 0, '    512B'],
    [1, 100, '[>                                                  ]       1B/100B'],
    [50, 100, '[=========================>                         ]      50B/100B'],
    [100, 100, '[==================================================>]     100B/100B'],
    [65_536, 2_811_478, '[=>                                                 ]  65.54kB/2.811MB'],
    [150, 100, '[==================================================>]     150B'],
  ])('%d of %d', (current, total, expected) => {
    expect(bar(current, total)).toBe(expected);
  });

  test('their shapes', () => {
    expect(JSON.stringify(statusLine('abc', 'Waiting'))).toBe('{"status":"Waiting","progressDetail":{},"id":"abc"}');
    expect(Object.keys(progressLine('abc', 'Downloading', 1, 2))).toEqual(['status', 'progressDetail', 'progress', 'id']);
    expect(secondsLine('abc', 'Extracting', 2)).toEqual({status: 'Extracting', progressDetail: {current: 2, units: 's'}, progress: '2 s', id: 'abc'});
  });

  test('about ten a second for each layer, and always the last', () => {
    let now = 0;
    const throttle = new Throttle({...systemClock, now: () => now});
    const let1 = Array.from({length: 1000}, (_, i) => {
      now = i;
      return throttle.due('a', i, 1_000);
    }).filter(Boolean).length;
    expect(let1).toBe(10);
    expect(throttle.due('a', 1_000, 1_000)).toBe(true);
    expect(throttle.due('b', 0, 1_000)).toBe(true);
  });
});

describe('lines to a reader', () => {
  test('a slow reader gets the newest progress of each layer, and every other line', async () => {
    const channel = new LineChannel();
    channel.push(statusLine('a', 'Pulling fs layer'));
    for (let i = 1; i <= 10_000; i += 1) {
      channel.push(progressLine('a', 'Downloading', i, 10_000));
      channel.push(progressLine('b', 'Downloading', i, 10_000));
    }
    channel.push(statusLine('a', 'Download complete'));
    channel.end();
    const lines: ProgressMessage[] = [];
    for await (const line of channel) lines.push(line);
    expect(lines.map((l) => [l.id, l.status, l.progressDetail?.current])).toEqual([
      ['a', 'Pulling fs layer', undefined], ['a', 'Downloading', 10_000], ['b', 'Downloading', 10_000], ['a', 'Download complete', undefined]]);
  });

  test('the work\'s error comes after its lines; its value is returned', async () => {
    const good = withLines(new AbortController().signal, (emit) => {
      emit(statusLine('a', 'x'));
      return Promise.resolve(7);
    });
    expect(await good.next()).toMatchObject({done: false, value: {status: 'x'}});
    expect(await good.next()).toEqual({done: true, value: 7});
    const bad = withLines(new AbortController().signal, (emit) => {
      emit(statusLine('a', 'x'));
      return Promise.reject(new Error('broken'));
    });
    await bad.next();
    await expect(bad.next()).rejects.toThrow('broken');
  });

  test('a reader who leaves aborts the work and waits for its end', async () => {
    let ended = false;
    const lines = withLines(new AbortController().signal, async (emit, signal) => {
      emit(statusLine('a', 'x'));
      await new Promise((resolve) => signal.addEventListener('abort', resolve));
      ended = true;
    });
    for await (const line of lines) if (line) break;
    expect(ended).toBe(true);
  });
});
