/**
 * kill -9 of each of our processes at many moments of create, start, stop and rm, under the stock client. After each death: the client has been
 * answered, every job ends, the datacenter serves again, nothing leaks, and a container that has nothing to do with it never noticed.
 *
 * One kill during each action, each part in its turn, early in the action or late; two of each pair of part and action with CETUS_LONG=1 (`make test-long`); N of
 * each, at random moments, with CETUS_CHAOS=N (`make chaos`).
 */
import {Aftermath, losses} from '../harness/aftermath';
import type {Finished} from '../harness/cetus';
import {LONG} from '../harness/long';
import {datacenterWithBusybox} from '../harness/suite';
import {until} from '../harness/wait';

const CHAOS = Number(process.env.CETUS_CHAOS ?? 0);
const VICTIMS = ['endpoint', 'agent', 'postgres', 'containerd'] as const;
type Victim = typeof VICTIMS[number];
/** The client itself needs 25 ms to start, and no action here takes longer than 80 ms more. */
const CLIENT_MS = 25;
const LONGEST_MS = 80;
/** Whoever waits for an answer gets one within this time: more than ten times what it usually takes. */
const ANSWER_MS = 20_000;
/** What a client may be told: that nobody is there any more, or the Engine's error document. Never nothing, never a stack. */
const REFUSAL = /error during connect|Cannot connect to the Docker daemon|EOF|connection reset|Error response from daemon|Error: |context canceled/;

let bystanderPid: string;
let alone: Record<string, number>;
/** When, in milliseconds since the epoch. */
const agentDeaths: number[] = [];
const answers: {victim: string; doing: string; delayMs: number; ms: number; said: string}[] = [];

const dc = datacenterWithBusybox({
  prepare: async () => {
    await dc.ok(['run', '-d', '--name', 'bystander', 'busybox', 'sh', '-c', 'i=0; while :; do echo $i; i=$((i+1)); usleep 20000; done']);
    bystanderPid = await dc.ok(['inspect', '-f', '{{.State.Pid}}', 'bystander']);
    // What a node has from its first container on, a bridge for one, is no leak of the second.
    for (const {name} of dc.running.nodes ?? []) await dc.ok(['run', '--rm', '-e', `constraint:node==${name}`, 'busybox', 'true']);
    alone = await after.marksAtRest();
  },
  cleanUp: async () => {
    if (CHAOS) process.stderr.write(`${answers.map((a) => `${a.victim} ${a.doing} +${a.delayMs} ms: ${Math.round(a.ms)} ms, ${a.said || 'done'}`).join('\n')}\n`);
  },
});
const after = new Aftermath(dc);

// What a failed test leaves must not fail the next.
afterEach(async () => {
  const left = (await dc.docker(['ps', '-aq', '--filter', 'name=victim', '--filter', 'name=many-'])).stdout.split('\n').filter(Boolean);
  if (left.length) await dc.docker(['rm', '-fv', ...left], {timeoutMs: 60_000});
}, 240_000);

/** Of a fleet's, each of a kind in turn. */
let turn = 0;
function partOf(victim: Victim): string {
  if (victim === 'postgres') return victim;
  const parts = dc.parts(victim);
  return parts[turn++ % parts.length]!;
}

function kill(victim: Victim, pid: number): void {
  if (victim === 'agent') agentDeaths.push(Date.now());
  process.kill(pid, 'SIGKILL');
}

/** Kills while the client waits, and returns what the client was told. */
async function killDuring(victim: Victim, doing: string, args: string[], delayMs: number): Promise<Finished> {
  const pid = await dc.living(partOf(victim));
  const from = performance.now();
  const acting = dc.docker(args, {timeoutMs: 60_000});
  await new Promise((resolve) => setTimeout(resolve, delayMs + CLIENT_MS));
  kill(victim, pid);
  const answer = await acting;
  const ms = performance.now() - from;
  answers.push({victim, doing, delayMs: Math.round(delayMs), ms, said: answer.status ? answer.stderr.trim() : ''});
  if (answer.status !== 0) expect(answer.stderr).toMatch(REFUSAL);
  expect(ms).toBeLessThan(ANSWER_MS);
  return answer;
}

async function undisturbed(): Promise<void> {
  await after.nothingLeaked(alone);
  expect(await dc.ok(['inspect', '-f', '{{.State.Pid}} {{.State.Running}} {{.RestartCount}}', 'bystander'])).toBe(`${bystanderPid} true 0`);
}

interface Action { prepare?: string[]; act: string[]; state: string }
const ACTIONS: Record<string, Action> = {
  create: {act: ['create', '--name', 'victim', '-v', '/anonymous', 'busybox', 'sleep', '1000'], state: 'created'},
  start: {prepare: ['create', '--name', 'victim', '-p', '0:80', 'busybox', 'sleep', '1000'], act: ['start', 'victim'], state: 'running'},
  stop: {prepare: ['run', '-d', '--name', 'victim', '-p', '0:80', 'busybox', 'sleep', '1000'], act: ['stop', '-t', '0', 'victim'], state: 'exited'},
  rm: {prepare: ['create', '--name', 'victim', '-v', '/anonymous', 'busybox', 'sleep', '1000'], act: ['rm', '-v', 'victim'], state: ''},
  // Answered by the store, told to the node behind it.
  'rm of a plain one': {prepare: ['create', '--name', 'victim', 'busybox', 'sleep', '1000'], act: ['rm', 'victim'], state: ''},
};

/** Different ones for each pair, spread over the whole action; all pairs together cover it. */
function moments(pair: number): number[] {
  if (CHAOS) return Array.from({length: CHAOS}, (_, n) => ((n + Math.random()) / CHAOS) * LONGEST_MS);
  const [early, late] = [((pair * 7) % 16) * 2.5, 40 + ((pair * 5) % 16) * 2.5];
  if (LONG) return [early, late];
  return [pair % 2 ? late : early];
}

/** In the short set every part dies, and every action is disturbed. */
const WHOLE = LONG || CHAOS > 0;
const actionsFor = (victim: Victim): string[] => Object.keys(ACTIONS).filter((_, n) => WHOLE || n % VICTIMS.length === VICTIMS.indexOf(victim));

describe.each(VICTIMS)('kill -9 of %s', (victim) => {
  test.each(actionsFor(victim))('during %s, at many moments', async (name) => {
    const {prepare, act, state} = ACTIONS[name];
    for (const delayMs of moments(VICTIMS.indexOf(victim) * 4 + Object.keys(ACTIONS).indexOf(name))) {
      if (prepare) await dc.ok(prepare);
      await killDuring(victim, name, act, delayMs);
      await after.serves();
      // Whatever the first answer was, asking again must lead to the state asked for.
      await until(`${act.join(' ')} to be true in the end`, async () => {
        const now = await dc.docker(['inspect', '-f', '{{.State.Status}}', 'victim']);
        if (state ? now.stdout.trim() === state : now.status !== 0) return true;
        await dc.docker(act, {timeoutMs: 60_000});
        return false;
      }, 60_000);
      await until('it to be removed', async () => {
        await dc.docker(['rm', '-fv', 'victim']);
        return (await dc.docker(['inspect', 'victim'])).status !== 0;
      }, 60_000);
    }
    await undisturbed();
  }, 480_000);
});

test.each<Victim>(WHOLE ? ['agent', 'postgres', 'containerd'] : ['agent'])('docker run -d goes through although %s dies under it', async (victim) => {
  for (const delayMs of moments(20).concat(120)) {
    const answer = await killDuring(victim, 'run', ['run', '-d', '--name', 'victim', 'busybox', 'sleep', '1000'], delayMs);
    expect(answer).toMatchObject({stderr: '', status: 0});
    expect(await dc.ok(['inspect', '-f', '{{.State.Running}}', 'victim'])).toBe('true');
    await dc.ok(['rm', '-f', 'victim']);
    await after.serves();
  }
  await undisturbed();
}, 240_000);

test.each<Victim>(WHOLE ? ['containerd', 'agent', 'postgres'] : ['containerd'])('%s dies twice while many containers are being made', async (victim) => {
  const names = Array.from({length: 16}, (_, n) => `many-${n}`);
  const running = names.map((name) => dc.docker(['run', '-d', '--name', name, 'busybox', 'sleep', '1000'], {timeoutMs: 60_000}));
  for (let deaths = 0; deaths < 2; deaths += 1) {
    const part = partOf(victim);
    const pid = await dc.living(part);
    // In the middle of the work, wherever that is: a few have come to be.
    await until('some to be made', async () => (await after.objects('containers')).length > 3 + deaths * 5);
    kill(victim, pid);
    await until('its next life', async () => (await dc.living(part)) !== pid);
  }
  const finished = await Promise.all(running);
  for (const one of finished) if (one.status !== 0) expect(one.stderr).toMatch(REFUSAL);
  await after.serves();
  await after.jobsEnded();
  // Who was told that it runs finds it running.
  const up = (await dc.ok(['ps', '--format', '{{.Names}}'])).split('\n');
  expect(names.filter((name, n) => finished[n].status === 0 && !up.includes(name))).toEqual([]);
  await until('all to be removed', async () => {
    const left = (await dc.ok(['ps', '-aq', '--filter', 'name=many-'])).split('\n').filter(Boolean);
    if (left.length) await dc.docker(['rm', '-f', ...left], {timeoutMs: 60_000});
    return left.length === 0;
  }, 240_000);
  await undisturbed();
}, 240_000);

test('the bystander lost no line, but for a chunk that was in the hands of an agent at its kill', async () => {
  const log = (await dc.ok(['logs', '-t', 'bystander'])).split('\n');
  expect(log.length).toBeGreaterThan(100);
  // What the agent's README leaves open: a kill -9 between the reading of a chunk and its writing costs that one. More than one of so many kills never hit it.
  const lost = losses(log);
  expect(lost.length).toBeLessThanOrEqual(1);
  for (const {afterMs, beforeMs} of lost) expect(agentDeaths.filter((at) => at >= Math.floor(afterMs) && at <= Math.ceil(beforeMs))).toHaveLength(1);
}, 240_000);
