/**
 * Clients that stop reading, and a process that does: bytes wait where they are, endpoint and agent keep their size, and nobody holds a
 * container for ever. A follower of logs has a place in a file, so it delays only itself; an attached client is on the container's pipe, so it
 * holds the container back until the agent cuts it off (STALL_MS, two minutes: the length of this suite).
 */
import {type ChildProcess, spawn} from 'node:child_process';
import {once} from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import {datacenterWithBusybox} from '../harness/suite';
import {until} from '../harness/wait';

const MB = 1_000_000;
/** Of output; as a log it is a third longer. */
const OUTPUT_BYTES = 200 * MB;
const LINE = 'abcdefghijklmnopqrstuvwxyz0123456789'.repeat(5);
const CHATTER = `yes ${LINE} | head -c ${OUTPUT_BYTES}`;
const LET_GO_BOUND_MS = 170_000;
/** After it the rest of the output has to go into the log. */
const STALL_BOUND_MS = 400_000;
const MAX_RSS_BYTES = 400 * MB;

const clients: ChildProcess[] = [];
const watches: NodeJS.Timeout[] = [];
const dc = datacenterWithBusybox({
  cleanUp: async () => {
    // A stopped process ends by SIGKILL all the same.
    for (const client of clients) client.kill('SIGKILL');
    for (const watch of watches) clearInterval(watch);
  },
});

test('clients that stop reading cost no memory and stop no container for ever', async () => {
  // Attached, and asleep after its first bytes: the container's output stands still with it.
  const attached = client(['run', '--name', 'held', 'busybox', 'sh', '-c', CHATTER], ['ignore', 'pipe', 'ignore']);
  await once(attached.stdout!, 'readable');
  attached.kill('SIGSTOP');
  const stoppedAt = Date.now();
  const held = await steady('the held container\'s log', () => logBytes('held'));
  // Looked at all along: how long the rest takes is the machine's affair.
  let letGoAt = 0;
  const looking = setInterval(() => { if (!letGoAt && logBytes('held') !== held) letGoAt = Date.now(); }, 200);
  watches.push(looking);
  expect(held).toBeGreaterThan(0);
  expect(held).toBeLessThan(OUTPUT_BYTES / 2);

  // A follower that reads nothing does not delay the container at all.
  await dc.ok(['run', '-d', '--name', 'followed', 'busybox', 'sh', '-c', `echo first; sleep 1; ${CHATTER}; echo; sleep 1000`]);
  const follower = client(['logs', '-f', 'followed'], ['ignore', 'pipe', 'ignore']);
  await once(follower.stdout!, 'readable');
  follower.kill('SIGSTOP');
  await until('the whole output in the log', () => logBytes('followed') > OUTPUT_BYTES, 240_000);

  // A process that never reads its stdin, and a client with more than everybody's buffers for it.
  const fed = client(['run', '-i', '--name', 'deaf', 'busybox', 'sleep', '1000'], ['pipe', 'ignore', 'ignore']);
  const fedBytes = feed(fed);
  await steady('what the deaf container was sent', fedBytes);
  // What the kernel holds between processes; of a fleet there are a balancer and a node's network more on the way.
  expect(fedBytes()).toBeLessThan((dc.isFleet ? 40 : 20) * MB);

  sizesAreBounded();

  // The follower wakes up: every byte is there.
  follower.kill('SIGCONT');
  // The echo after it closes the last line, which would else be held back as an open one.
  const all = 'first\n'.length + OUTPUT_BYTES + '\n'.length;
  let seen = 0;
  for await (const chunk of follower.stdout!) {
    seen += (chunk as Buffer).length;
    if (seen >= all) break;
  }
  expect(seen).toBe(all);

  // The sleeper is cut off, no earlier than documented, and the container goes on to its end.
  await until('the held container to end', async () => (await dc.ok(['inspect', '-f', '{{.State.Status}}', 'held'])) === 'exited', STALL_BOUND_MS);
  expect(letGoAt - stoppedAt).toBeGreaterThan(100_000);
  expect(letGoAt - stoppedAt).toBeLessThan(LET_GO_BOUND_MS);
  expect(logBytes('held')).toBeGreaterThan(OUTPUT_BYTES);
  sizesAreBounded();
}, 900_000);

function client(args: string[], stdio: ('ignore' | 'pipe')[]): ChildProcess {
  const child = spawn('docker', args, {stdio: stdio as never, env: {...process.env, DOCKER_HOST: dc.host, DOCKER_CONFIG: path.join(dc.dataDir, 'docker-config')}});
  clients.push(child);
  return child;
}

/** Writes as much as the client takes, and tells how much that was. */
function feed(child: ChildProcess): () => number {
  const block = Buffer.alloc(64 * 1024);
  let taken = 0;
  child.stdin!.on('error', () => undefined);
  const write = (): void => {
    child.stdin!.write(block, (err) => {
      if (err) return;
      taken += block.length;
      write();
    });
  };
  write();
  return () => taken;
}

/** The value once it has been the same for three seconds. */
async function steady(what: string, value: () => number): Promise<number> {
  let last = -1;
  let since = Date.now();
  return until(`${what} to stand still`, () => {
    const now = value();
    if (now !== last) [last, since] = [now, Date.now()];
    return now > 0 && Date.now() - since > 3000 ? now : undefined;
  }, 180_000);
}

function logBytes(name: string): number {
  const containers = dc.nodeDirs.flatMap((dir) => fs.readdirSync(path.join(dir, 'agent', 'containers')).map((id) => path.join(dir, 'agent', 'containers', id)));
  // One that is just being made has a directory first.
  const nameOf = (file: string): string | undefined => (fs.existsSync(file) ? (JSON.parse(fs.readFileSync(file, 'utf8')) as {spec: {name: string}}).spec.name : undefined);
  const its = containers.find((dir) => nameOf(path.join(dir, 'spec.json')) === name);
  return its === undefined ? 0 : fs.statSync(path.join(its, `${path.basename(its)}-json.log`), {throwIfNoEntry: false})?.size ?? 0;
}

function sizesAreBounded(): void {
  const pids = dc.pids();
  for (const part of (['endpoint', 'agent'] as const).flatMap((kind) => dc.parts(kind))) {
    const rss = Number(/VmRSS:\s+(\d+)/.exec(fs.readFileSync(`/proc/${pids[part]}/status`, 'utf8'))![1]) * 1024;
    expect({part, rss: rss < MAX_RSS_BYTES ? 'bounded' : rss}).toEqual({part, rss: 'bounded'});
  }
}
