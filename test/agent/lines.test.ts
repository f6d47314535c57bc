import {Lines} from '../../lib/agent/runtime/lines';

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Work that says when it begins and ends when it is told to. */
function work(log: string[], name: string): {run(): Promise<string>; end(err?: Error): void} {
  let end!: (err?: Error) => void;
  const over = new Promise<void>((resolve, reject) => { end = (err) => (err ? reject(err) : resolve()); });
  return {
    run: async () => {
      log.push(name);
      await over;
      return name;
    },
    end,
  };
}

it('lets one of a key through at a time, in the order of coming, and other keys beside it', async () => {
  const [lines, log] = [new Lines(), [] as string[]];
  const [a, b, c] = [work(log, 'a'), work(log, 'b'), work(log, 'c')];
  const all = Promise.all([lines.inLine('x', a.run), lines.inLine('x', b.run), lines.inLine('y', c.run)]);
  await turn();
  expect(log).toEqual(['a', 'c']);
  b.end();
  await turn();
  expect(log).toEqual(['a', 'c']);
  a.end();
  await turn();
  expect(log).toEqual(['a', 'c', 'b']);
  c.end();
  await expect(all).resolves.toEqual(['a', 'b', 'c']);
});

it('goes on behind one that fails, and tells only whose it was', async () => {
  const [lines, log] = [new Lines(), [] as string[]];
  const [a, b] = [work(log, 'a'), work(log, 'b')];
  const [first, second] = [lines.inLine('x', a.run), lines.inLine('x', b.run)];
  a.end(new Error('no'));
  b.end();
  await expect(first).rejects.toThrow('no');
  await expect(second).resolves.toBe('b');
});
