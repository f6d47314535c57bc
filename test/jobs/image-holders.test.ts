/** Nodes that come to have an image are counted together, each of them, and nobody is told before the store knows. */
import {CetusError} from '../../lib/base/errors';
import {ImageHolders, MOST_HOLDERS} from '../../lib/jobs/image-holders';
import {createMemoryMoray} from '../../lib/moray/memory';
import type {Moray} from '../../lib/moray/moray';
import {BUCKETS} from '../../lib/schema/buckets';
import type {Image} from '../../lib/schema/objects';

const KEY = 'default/i';
let moray: Moray;
let puts: number;
let beforePut: () => Promise<void>;
let watched: Moray;
let holders: ImageHolders;

const image = async (): Promise<Image> => (await moray.get<Image>(BUCKETS.images.name, KEY)).value;

beforeEach(async () => {
  moray = createMemoryMoray();
  await moray.open(BUCKETS.images);
  await moray.put(BUCKETS.images.name, KEY, {id: 'i', account: 'default', nodes: ['n0'], repoDigests: []});
  puts = 0;
  beforePut = async () => undefined;
  watched = Object.assign(Object.create(moray) as Moray, {
    put: async (...args: Parameters<Moray['put']>) => {
      puts += 1;
      await beforePut();
      return moray.put(...args);
    },
  });
  holders = new ImageHolders();
});
afterEach(() => moray.close());

test('a hundred at once are two writes, and each caller is answered when its node is in the store', async () => {
  await Promise.all(Array.from({length: 100}, async (_, n) => {
    await holders.count(watched, KEY, [`n${n}`]);
    expect((await image()).nodes).toContain(`n${n}`);
  }));
  expect(puts).toBeLessThanOrEqual(2);
  expect(new Set((await image()).nodes).size).toBe(100);
});

test('what others wrote meanwhile stays', async () => {
  beforePut = async () => {
    beforePut = async () => undefined;
    await moray.put(BUCKETS.images.name, KEY, {...(await image()), nodes: ['n0', 'theirs']});
  };
  await holders.count(watched, KEY, ['mine']);
  expect((await image()).nodes).toEqual(['n0', 'theirs', 'mine']);
  expect(puts).toBe(2);
});

test('a failure is told to all who were in that write, and the next one is a write of its own', async () => {
  beforePut = async () => { throw new CetusError('unavailable', 'no store'); };
  const failing = [holders.count(watched, KEY, ['a']), holders.count(watched, KEY, ['b'])];
  expect((await Promise.allSettled(failing)).map(({status}) => status)).toEqual(['rejected', 'rejected']);
  expect((await image()).nodes).toEqual(['n0']);
  beforePut = async () => undefined;
  await holders.count(watched, KEY, ['a', 'b']);
  expect((await image()).nodes).toEqual(['n0', 'a', 'b']);
});

test('nothing is written for nothing: no node, one that counts, an image that is gone, or one of which enough have it', async () => {
  await holders.count(watched, KEY, []);
  await holders.count(watched, KEY, ['n0']);
  await holders.count(watched, 'default/gone', ['n1']);
  await moray.put(BUCKETS.images.name, KEY, {...(await image()), nodes: Array.from({length: MOST_HOLDERS}, (_, n) => `n${n}`)});
  await holders.count(watched, KEY, ['one-more']);
  expect(puts).toBe(0);
});
