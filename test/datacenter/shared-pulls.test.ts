import {SharedPulls} from '../../lib/datacenter/images/shared-pulls';
import type {ProgressMessage} from '../../lib/schema/docker';

interface Begun { tell(message: ProgressMessage): void; signal: AbortSignal; finish(result: string): void; fail(err: Error): void }

let pulls: SharedPulls<string>;
let begun: Begun[];
beforeEach(() => {
  pulls = new SharedPulls();
  begun = [];
});
const begin = (tell: (message: unknown) => void, signal: AbortSignal): Promise<string> => new Promise((finish, fail) => {
  begun.push({tell, signal, finish, fail});
  signal.addEventListener('abort', () => fail(signal.reason as Error));
});
const follow = async (key: string, signal?: AbortSignal): Promise<{lines: string[]; result: string}> => {
  const lines: string[] = [];
  const source = pulls.follow(key, signal, begin);
  for (;;) {
    const next = await source.next();
    if (next.done) return {lines, result: next.value};
    lines.push(`${next.value.id}: ${next.value.status}`);
  }
};
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('one job for all who ask for the same; who comes later sees where things stand', async () => {
  const first = follow('a');
  await turn();
  begun[0].tell({id: 'x', status: 'Pulling fs layer'});
  begun[0].tell({id: 'x', status: 'Downloading'});
  begun[0].tell({id: 'y', status: 'Waiting'});
  const second = follow('a');
  const other = follow('b');
  await turn();
  begun[0].tell({id: 'x', status: 'Pull complete'});
  begun[0].finish('done');
  begun[1].finish('b');
  expect(await first).toEqual({result: 'done', lines: ['x: Pulling fs layer', 'x: Downloading', 'y: Waiting', 'x: Pull complete']});
  expect(await second).toEqual({result: 'done', lines: ['x: Downloading', 'y: Waiting', 'x: Pull complete']});
  expect((await other).result).toBe('b');
  expect(begun).toHaveLength(2);
  const again = follow('a');
  await turn();
  begun[2].fail(new Error('no'));
  await expect(again).rejects.toThrow('no');
});

test('the job is withdrawn with the last client, not before; the next one gets a job of its own', async () => {
  const [one, two] = [new AbortController(), new AbortController()];
  const first = follow('a', one.signal);
  const second = follow('a', two.signal);
  await turn();
  one.abort(new Error('gone'));
  await expect(first).rejects.toThrow('gone');
  expect(begun[0].signal.aborted).toBe(false);
  two.abort(new Error('gone too'));
  await expect(second).rejects.toThrow('gone too');
  expect(begun[0].signal.aborted).toBe(true);
  const third = follow('a');
  await turn();
  begun[1].finish('new');
  expect((await third).result).toBe('new');
});
