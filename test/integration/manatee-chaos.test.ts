/** manatee on real servers, a short set of what `make chaos` does fifty times (test/chaos/manatee.test.ts): one cluster, clients that never stop, everything checked after each round. */
import {faultNamed} from '../harness/manatee/faults';
import {Chaos} from '../harness/manatee/rounds';

let chaos: Chaos;
beforeAll(async () => { chaos = await Chaos.start(); }, 180_000);
afterAll(() => chaos?.stop(), 120_000);

test.each([
  'kill -9 of Postgres: primary',
  'machine killed: primary, and ZooKeeper killed: leader',
  'SIGSTOP of machine: primary',
  'primary cut off from everything',
])('%s: nothing is lost, and the cluster is whole again', async (name) => { await chaos.round(faultNamed(name)); }, 180_000);

test('in the end every copy is the same', async () => {
  await chaos.settle();
  process.stderr.write(`${chaos.summary()}\n`);
}, 120_000);
