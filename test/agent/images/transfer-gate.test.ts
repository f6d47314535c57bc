import {TransferGate} from '../../../lib/agent/images/peers/gate';
import {rangeOf} from '../../../lib/agent/server/blobs';

const forever = new AbortController().signal;
const LONG_MS = 60_000;

describe('who is served', () => {
  test('no more than the limit, and the next when one leaves', async () => {
    const gate = new TransferGate(2);
    const [first] = [await gate.enter('a', 0, forever), await gate.enter('b', 0, forever)];
    await expect(gate.enter('c', 0, forever)).rejects.toMatchObject({kind: 'unavailable', info: {busy: true}});
    const third = gate.enter('c', LONG_MS, forever);
    first();
    first();
    await third;
    await expect(gate.enter('d', 0, forever)).rejects.toMatchObject({info: {busy: true}});
  });

  test('nobody gets more than half of the places', async () => {
    const gate = new TransferGate(4);
    await gate.enter('greedy', 0, forever);
    await gate.enter('greedy', 0, forever);
    await expect(gate.enter('greedy', 0, forever)).rejects.toMatchObject({info: {busy: true}});
    await gate.enter('modest', 0, forever);
  });

  test('who is served least is next, whoever came first', async () => {
    const gate = new TransferGate(4);
    const leave = [await gate.enter('a', 0, forever), await gate.enter('b', 0, forever), await gate.enter('b', 0, forever), await gate.enter('c', 0, forever)];
    const order: string[] = [];
    const wait = (peer: string): Promise<unknown> => gate.enter(peer, LONG_MS, forever).then(() => order.push(peer));
    const all = [wait('a'), wait('c'), wait('d')];
    leave[1]!();
    await all[2];
    leave[2]!();
    await Promise.race([all[0], all[1]]);
    leave[3]!();
    await Promise.all(all);
    expect(order).toEqual(['d', 'a', 'c']);
  });

  test('who waits too long, or leaves, takes no place', async () => {
    const gate = new TransferGate(1);
    const leave = await gate.enter('a', 0, forever);
    await expect(gate.enter('b', 5, forever)).rejects.toMatchObject({info: {busy: true}});
    const gone = new AbortController();
    const left = gate.enter('c', LONG_MS, gone.signal);
    gone.abort(new Error('left'));
    await expect(left).rejects.toThrow('left');
    leave();
    await gate.enter('d', 0, forever);
  });
});

test('ranges', () => {
  expect(rangeOf('bytes=0-', 10)).toEqual({first: 0, last: 9});
  expect(rangeOf('bytes=4-6', 10)).toEqual({first: 4, last: 6});
  expect(rangeOf('bytes=4-99', 10)).toEqual({first: 4, last: 9});
  expect(rangeOf('bytes=-3', 10)).toEqual({first: 7, last: 9});
  expect(rangeOf('bytes=-30', 10)).toEqual({first: 0, last: 9});
  for (const bad of ['bytes=10-', 'bytes=-0']) expect(rangeOf(bad, 10)).toBe('unsatisfiable');
  for (const none of ['bytes=5-4', 'bytes=0-1,3-4', 'lines=1-2', 'bytes=-', 'bytes=x-']) expect(rangeOf(none, 10)).toBeUndefined();
});
