/** What must be true after each round, whatever has happened in it. Answers all that is not. */
import {roleOf, illegalStep, type HistoryEntry} from '../../../lib/manatee/state';
import {until} from '../wait';
import {written, type Clients} from './clients';
import {drop, type Cluster} from './cluster';

export async function check(cluster: Cluster, clients: Clients): Promise<string[]> {
  const promised = clients.ledger.snapshot();
  const found = await until('the primary to be read', () => clients.withPrimary(written), 60_000);
  return [...clients.ledger.violations.splice(0), ...clients.ledger.compare(promised, found), ...await checkHistory(cluster), ...await verified(cluster)];
}

async function checkHistory(cluster: Cluster): Promise<string[]> {
  const history = await cluster.history();
  const {state} = await cluster.view();
  const wrong = history.flatMap(({state: after, at, by}: HistoryEntry, i) => {
    const before = history[i - 1]?.state;
    const illegal = before ? illegalStep(before, after) : after.generation === 1 ? undefined : `the history begins with generation ${after.generation}`;
    return illegal ? [`at ${at}, by ${by}: ${illegal}`] : [];
  });
  // A state that was written between the two looks stands in no entry that we have.
  if (history.length && state && history.at(-1)!.state.generation > state.generation) wrong.push(`the history is at generation ${history.at(-1)!.state.generation}, the state at ${state.generation}`);
  return wrong;
}

/** What an operator would be told. It looks several times, and tells what lasts. */
async function verified(cluster: Cluster): Promise<string[]> {
  const {findings} = await until('a verification', () => cluster.operator.verify(), 60_000);
  return findings.map((finding) => `verify: ${JSON.stringify(finding)}`);
}

/** After the last round, when nobody writes any more: every peer has the same, and all of it. */
export async function checkCopies(cluster: Cluster, clients: Clients): Promise<string[]> {
  const state = await cluster.whole();
  const all = await clients.withPrimary(written);
  const wrong = clients.ledger.compare(clients.ledger.snapshot(), all);
  const wanted = digest(all);
  for (const machine of cluster.machines) {
    await until(`${machine.id}, ${roleOf(state, machine.id)}, to have what the primary has`, async () => {
      const client = machine.local('sitter');
      try {
        await client.connect();
        return digest(await written(client)) === wanted;
      } finally {
        drop(client);
      }
    }).catch((err: Error) => wrong.push(err.message));
  }
  return wrong;
}

const digest = (all: Map<string, number[]>): string => JSON.stringify([...all].map(([name, numbers]) => [name, [...numbers].sort((a, b) => a - b)]).sort());
