/**
 * manatee on real servers: CETUS_CHAOS_ROUNDS (50) rounds of faults, chosen by a seed that is printed (CETUS_CHAOS_SEED to have it again; what the machine makes of
 * it differs all the same), with writers and readers that never stop. CETUS_CHAOS_FAULT=REGEXP chooses among those whose name matches.
 *
 * Part of `make chaos`, not of `make test`: a round takes ten to thirty seconds.
 */
import {FAULTS} from '../harness/manatee/faults';
import {Chaos} from '../harness/manatee/rounds';
import {seeded} from '../harness/seeded';

const ROUNDS = Number(process.env.CETUS_CHAOS_ROUNDS ?? 50);
const SEED = Number(process.env.CETUS_CHAOS_SEED ?? Math.floor(Math.random() * 2 ** 31));
const PEERS = Number(process.env.CETUS_CHAOS_PEERS ?? 3 + (SEED % 2));
const SESSION_MS = Number(process.env.CETUS_CHAOS_SESSION_MS ?? 3000);
/** Rounds with longer outages are told in full. */
const SLOW_MS = Number(process.env.CETUS_CHAOS_SLOW_MS ?? Infinity);
const WANTED = new RegExp(process.env.CETUS_CHAOS_FAULT ?? '');

let chaos: Chaos | undefined;
afterAll(() => chaos?.stop(), 120_000);

test('no acknowledged write is lost or doubled, never two gates are open, and every peer comes back by itself', async () => {
  const say = (line: string): void => { process.stderr.write(`${line}\n`); };
  say(`manatee: ${ROUNDS} rounds, CETUS_CHAOS_SEED=${SEED}, ${PEERS} peers`);
  const next = seeded(SEED);
  const faults = FAULTS.filter((fault) => WANTED.test(fault.name));
  chaos = await Chaos.start({peers: PEERS, sessionTimeoutMs: SESSION_MS});
  try {
    for (let n = 1; n <= ROUNDS; n += 1) {
      const round = await chaos.round(faults[Math.floor(next() * faults.length)]!);
      say(`${n}: ${round.fault}: without a write ${round.outageMs} ms, whole after ${round.wholeMs} ms`);
      if (round.outageMs > SLOW_MS) say(await chaos.cluster.report());
    }
    await chaos.settle();
  } finally {
    say(chaos.summary());
  }
}, 180_000 + ROUNDS * 180_000);
