// How long no write is acknowledged after the primary's death: our cluster and Patroni's in turn, round by round, the same client over both.
import {drop, firstWrite, primaryOf} from '../clients.mjs';
import {killAll, sleep, waitFor} from '../processes.mjs';

const HEAL_MS = 120_000;
/** A round begins at any phase of a system's loop, which is a second. */
const PHASE_MS = 1000;

export default async function failover({cluster, patroni, rounds, sessionMs, line, result, note, isWanted}) {
  if (!isWanted('failover')) return;
  const [ours, theirs] = [await cluster(), await patroni()];
  for (const system of [ours, theirs]) await prepare(system);
  line(['ms to the next write after', '', 'cetus', 'worst', 'patroni', 'worst', 'of patroni']);
  for (const [kind, title, target] of [['postgres', `kill -9 of Postgres`, 2000], ['machine', `kill -9 of the machine`, sessionMs + 1000]]) {
    const took = new Map([ours, theirs].map((system) => [system, []]));
    for (let n = 0; n < rounds; n += 1)
      for (const system of n % 2 ? [theirs, ours] : [ours, theirs]) took.get(system).push(await round(system, kind));
    await Promise.all([ours, theirs].map((system) => system.healing));
    const [mine, other] = [took.get(ours), took.get(theirs)];
    const ratio = median(mine) / median(other);
    const cells = [title, '', ...[median(mine), Math.max(...mine), median(other), Math.max(...other)].map((ms) => ms.toFixed(0)), ratio.toFixed(2)];
    result(`${title}: median ms`, median(mine), target, cells, 'most');
    result(`${title}: ahead of Patroni`, ratio, 1, [`  ${rounds} rounds each`, '', '', '', '', '', ratio.toFixed(2)], 'most');
  }
  note(`sessions of ${sessionMs} ms for both`);
  for (const system of [ours, theirs]) {
    await system.healing;
    note(await lost(system));
  }
}

const median = (xs) => [...xs].sort((a, b) => a - b)[Math.floor(xs.length / 2)];

async function prepare(system) {
  await healthy(system);
  const client = await primaryOf(system.urls);
  await client.query('CREATE TABLE failover (n bigint PRIMARY KEY)');
  await client.end();
  system.written = 0;
  system.acknowledged = [];
}

const healthy = (system) => waitFor(`${system.name} to be healthy`, () => system.healthy(), HEAL_MS);

/**
 * One death, ms until the next acknowledged write. The cluster becomes whole again behind it, mostly while the other system's session with ZooKeeper runs out; its
 * own next round begins after that.
 */
async function round(system, kind) {
  const write = async (client) => {
    const n = (system.written += 1);
    await client.query('INSERT INTO failover VALUES ($1)', [n]);
    system.acknowledged.push(n);
  };
  await system.healing;
  const before = await primaryOf(system.urls);
  await write(before);
  await sleep(Math.random() * PHASE_MS);
  await write(before);
  const {port} = before;
  const peer = system.peers.find((p) => p.port === port);
  const postmaster = system.postmasterOf(peer);
  const pids = kind === 'postgres' ? [postmaster] : system.machineOf(peer);
  if (!pids.includes(postmaster)) throw new Error(`${system.name}: the machine of ${peer.id} has no Postgres`);
  const killed = killAll(pids);
  drop(before);
  const ms = await firstWrite(system.discover, write) - killed;
  const heal = async () => {
    if (kind === 'machine') await system.revive(peer);
    await healthy(system);
  };
  system.healing = heal();
  // It is awaited later, and must not end the process before that.
  system.healing.catch(() => undefined);
  // Nothing of it falls into the other's outage where that is short.
  if (kind === 'postgres') await system.healing;
  return ms;
}

/** Whether everything that was acknowledged is still there. */
async function lost(system) {
  const client = await primaryOf(system.urls);
  const {rows} = await client.query('SELECT n FROM failover');
  await client.end();
  const there = new Set(rows.map((r) => Number(r.n)));
  const missing = system.acknowledged.filter((n) => !there.has(n));
  return `${system.name}: of ${system.acknowledged.length} acknowledged writes ${missing.length === 0 ? 'none is missing' : `${missing.length} ARE MISSING`}`;
}
