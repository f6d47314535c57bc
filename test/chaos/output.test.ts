/**
 * What a kill -9 of the agent costs of the output of containers that never stop printing: the agent is killed CETUS_KILLS times, a third of them while
 * it starts, a third while it reads what has gathered in its absence, and every log is read for numbers that are missing, come twice, or are in pieces.
 *
 * Part of `make chaos`, not of `make test`: two hundred kills take five minutes. Prints what it counted.
 */
import fs from 'node:fs';
import path from 'node:path';
import {datacenterWithBusybox} from '../harness/suite';
import {until} from '../harness/wait';

const KILLS = Number(process.env.CETUS_KILLS ?? 210);
/**
 * Not zero: between read(2) and write(2) a chunk is in the agent's memory only (lib/agent/README.md, Logs). But what rests in a buffer for as much as a
 * tenth of a millisecond would be lost in every tenth kill of a container that prints each millisecond.
 */
const MAX_LOST_PER_THOUSAND = 10;
// The builtin `read` waits a millisecond without a fork.
const TICK = 'mkfifo /tick; exec 3<>/tick; i=0; while :; do %; i=$((i+1)); read -t 0.001 -u 3; done';
const PRINTERS: Record<string, string> = {
  lines: 'echo $i',
  errors: 'echo $i >&2',
  pieces: 'printf %s $i; read -t 0.001 -u 3; echo',
  many: 'echo $i; i=$((i+1)); echo $i; i=$((i+1)); echo $i; i=$((i+1)); echo $i',
};

const dc = datacenterWithBusybox({cleanUp: () => dc.docker(['rm', '-f', ...Object.keys(PRINTERS)])});

interface Tally { lines: number; lost: number; gaps: number; doubled: number; broken: number }

function tally(log: string): Tally {
  const found: Tally = {lines: 0, lost: 0, gaps: 0, doubled: 0, broken: 0};
  let expected = 0;
  for (const line of log.split('\n')) {
    if (line === '') continue;
    found.lines += 1;
    const n = Number(line);
    if (!/^\d+$/.test(line) || n > expected + 1_000_000) found.broken += 1;
    else if (n < expected) found.doubled += 1;
    else {
      if (n > expected) {
        found.gaps += 1;
        found.lost += n - expected;
      }
      expected = n + 1;
    }
  }
  return found;
}

/** Bytes of all logs. */
function logged(): number {
  const dir = path.join(dc.dataDir, 'agent', 'containers');
  return fs.readdirSync(dir).reduce((sum, id) => sum + (fs.statSync(path.join(dir, id, `${id}-json.log`), {throwIfNoEntry: false})?.size ?? 0), 0);
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => { setTimeout(resolve, ms); });

const MOMENTS: (() => Promise<void>)[] = [
  () => pause(Math.random() * 500),
  async () => {
    const before = logged();
    const deadline = Date.now() + 30_000;
    while (logged() === before && Date.now() < deadline) await new Promise((resolve) => { setImmediate(resolve); });
    await pause(Math.random() * 4);
  },
  async () => {
    const before = logged();
    await until('the agent to read', () => logged() > before);
    // Long enough that the next start is not put off.
    await pause(350 + Math.random() * 100);
  },
];

test('kill -9 of the agent: nothing comes twice, and next to nothing is missing', async () => {
  for (const [name, print] of Object.entries(PRINTERS)) await dc.ok(['run', '-d', '--name', name, 'busybox', 'sh', '-c', TICK.replace('%', print)]);
  for (let kills = 0; kills < KILLS; kills += 1) {
    const pid = await until('the agent to live', () => dc.pids()['agent']);
    await MOMENTS[kills % MOMENTS.length]!();
    process.kill(pid, 'SIGKILL');
    await until('its next life', () => dc.pids()['agent'] && dc.pids()['agent'] !== pid, 60_000);
  }
  await until('the node to be taken up', async () => (await dc.docker(['logs', '--tail', '1', 'lines'])).stdout !== '', 60_000);
  await until('them to end', async () => (await dc.docker(['kill', ...Object.keys(PRINTERS)])).status === 0, 60_000);
  const counted: Record<string, Tally> = {};
  for (const name of Object.keys(PRINTERS)) {
    const {stdout, stderr} = await dc.docker(['logs', name], {timeoutMs: 120_000});
    counted[name] = tally(stdout + stderr);
  }
  process.stderr.write(`${KILLS} kills: ${JSON.stringify(counted)}\n`);
  const all = Object.values(counted);
  for (const {lines, doubled, broken, gaps} of all) {
    expect(lines).toBeGreaterThan(KILLS * 100);
    expect(doubled).toBe(0);
    // A chunk that is lost may have begun or ended in the middle of a line.
    expect(broken).toBeLessThanOrEqual(gaps * 2);
  }
  const gaps = all.reduce((sum, one) => sum + one.gaps, 0);
  expect(gaps).toBeLessThanOrEqual(Math.max(2, (MAX_LOST_PER_THOUSAND * KILLS * all.length) / 1000));
}, 120_000 + KILLS * 6_000);
