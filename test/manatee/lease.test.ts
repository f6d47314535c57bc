/** The lease against a model of what ZooKeeper's leader knows: a session it hears of by pings' answers alone, every half tick. */
import {Lease} from '../../lib/manatee/zookeeper/lease';

const T = 3000;

interface Answered {sentMs: number; answeredMs: number}

/** mulberry32 */
function random(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The answered writes of a client that beats, and at times does not, and when the leader ends its session at last. */
function life(seed: number): {answered: Answered[]; expiredMs: number} {
  const next = random(seed);
  const halfTickMs = T / (6 + next() * 30);
  const latencyMs = T / 40;
  const late = (): number => next() * latencyMs;
  const answered: Answered[] = [];
  let touchedMs = 0;                 // at the leader; the session begins at 0
  let pingMs = next() * halfTickMs;  // when the follower answers the next ping
  let heardMs: number | undefined;   // by the follower, since the last ping
  // The follower's stream to the leader is ordered: what is answered at `ms` arrives before what it sends afterwards.
  const pingsUntil = (ms: number): void => {
    for (; pingMs <= ms; pingMs += halfTickMs * (0.9 + next() * 0.1)) {
      if (heardMs === undefined) continue;
      if (pingMs > touchedMs + T) return;
      touchedMs = pingMs;
      heardMs = undefined;
    }
  };
  for (let sentMs = late(); answered.length < 60; sentMs += next() < 0.8 ? T / 6 : next() * T * 1.1) {
    sentMs = Math.max(sentMs, answered.at(-1)?.answeredMs ?? 0);
    const atFollowerMs = sentMs + late();
    pingsUntil(atFollowerMs);
    heardMs = atFollowerMs;
    const atLeaderMs = atFollowerMs + late();
    if (atLeaderMs > touchedMs + T) return {answered, expiredMs: touchedMs + T};
    answered.push({sentMs, answeredMs: atLeaderMs + late()});
  }
  // The follower is cut off from the leader at the moment that suits least: right now.
  return {answered, expiredMs: touchedMs + T};
}

/** How long before its end the session was still taken for living, at worst; negative: never beyond it. */
function worstMs(until: (answer: Answered) => number): number {
  let worst = -Infinity;
  for (let seed = 1; seed <= 1000; seed += 1) {
    const {answered, expiredMs} = life(seed);
    for (const answer of answered) worst = Math.max(worst, until(answer) - expiredMs);
  }
  return worst;
}

test('no lease outlives the session at the leader, whatever the gaps between beats', () => {
  let worst = -Infinity;
  for (let seed = 1; seed <= 1000; seed += 1) {
    const {answered, expiredMs} = life(seed);
    const lease = new Lease();
    lease.connected(0, T, true);
    for (const {sentMs, answeredMs} of answered) {
      lease.answered(sentMs, answeredMs);
      worst = Math.max(worst, lease.until() - expiredMs);
    }
  }
  expect(worst).toBeLessThanOrEqual(0);
});

test('the model can tell: two thirds from the last question alone would outlive it', () => {
  expect(worstMs(({sentMs}) => sentMs + T * 2 / 3)).toBeGreaterThan(0);
});

test('with beats every sixth the lease is two thirds from the last of them', () => {
  const lease = new Lease();
  expect(lease.until()).toBe(-Infinity);
  lease.connected(100, T, true);
  expect(lease.until()).toBe(100 + T * 2 / 3);
  for (let sentMs = 110; sentMs < 20_000; sentMs += T / 6) {
    lease.answered(sentMs, sentMs + 20);
    expect(lease.until()).toBe(sentMs + T * 2 / 3);
  }
});

test('a first answer after a gap gives no more than the session had left; the ones after it the rest', () => {
  const lease = new Lease();
  lease.connected(0, T, true);
  lease.answered(10, 20);
  lease.answered(2700, 2710);
  expect(lease.until()).toBe(10 + T);
  lease.answered(2800, 2810);
  expect(lease.until()).toBe(10 + T);
  lease.answered(3500, 3510);
  expect(lease.until()).toBe(3500 + T * 2 / 3);
});

test('another connection of the session gives nothing by itself; it counts from when it was asked for, once a write is answered on it', () => {
  const lease = new Lease();
  lease.connected(0, T, true);
  lease.connected(2500, T, false);
  expect(lease.until()).toBe(T * 2 / 3);
  lease.answered(2600, 2610);
  expect(lease.until()).toBe(2600 + T * 2 / 3);
  lease.ended();
  expect(lease.until()).toBe(-Infinity);
});
