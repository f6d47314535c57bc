import {type ContainerView, decide, nextBackoff, UNSEEN_EXIT_CODE} from '../../lib/agent/container/decide';
import {newRecord, type ContainerRecord} from '../../lib/agent/container/record';
import {judge, healthPlan} from '../../lib/agent/container/health';
import {parseSignal} from '../../lib/agent/container/signals';
import {parsePs} from '../../lib/agent/top';
import type {ContainerObservation, NetworkAttachment} from '../../lib/schema/container';

const LAUNCH = {networks: [], attachments: [], ports: []};
const AT = '2026-01-01T00:00:00Z';

function view(observation: Partial<ContainerObservation> = {}, record: Partial<ContainerRecord> = {}, more: Partial<ContainerView> = {}): ContainerView {
  const base = newRecord('c');
  return {
    record: {...base, launch: LAUNCH, desired: 'running', bootId: 'b1', ...record, observation: {...base.observation, ...observation}},
    name: 'c', policy: {}, stopSignal: undefined, stopTimeoutSeconds: undefined, hasHealthcheck: false, bootId: 'b1', ...more,
  };
}
const kinds = (v: ContainerView, event: Parameters<typeof decide>[1]): string[] => decide(v, event).actions.map((action) => action.kind);

test('the back-off doubles to a minute and is reset by ten seconds of running', () => {
  const delays = [0];
  for (let i = 0; i < 12; i += 1) delays.push(nextBackoff(delays.at(-1)!, 50));
  expect(delays.slice(1)).toEqual([100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000]);
  expect(nextBackoff(60_000, 10_000)).toBe(100);
});

test.each([
  ['no', 1, false], ['always', 0, true], ['unless-stopped', 0, true], ['on-failure', 0, false], ['on-failure', 1, true],
] as const)('policy %s, exit code %i: restarts %s', (Name, exitCode, again) => {
  const over = decide(view({status: 'running', pid: 5}, {}, {policy: {Name}}), {kind: 'exit', exitCode, at: AT, ranForMs: 5});
  expect(over.record.observation.status).toBe(again ? 'restarting' : 'exited');
  expect(over.reports).toEqual([{action: 'die', attributes: {exitCode: String(exitCode), execDuration: '0'}}]);
  // A person who stopped it wins over any policy.
  const stopped = decide(view({status: 'running', pid: 5}, {desired: 'stopped'}, {policy: {Name}}), {kind: 'exit', exitCode, at: AT, ranForMs: 5});
  expect(stopped.record.observation.status).toBe('exited');
});

test('a signal that is not the stop signal leaves the policy on', () => {
  const running = view({status: 'running', pid: 5}, {}, {stopSignal: 15, policy: {Name: 'always'}});
  expect(decide(running, {kind: 'kill', task: 't', signal: 1}).record.desired).toBe('running');
  expect(decide(running, {kind: 'kill', task: 't', signal: 15}).record.desired).toBe('stopped');
  expect(decide(running, {kind: 'kill', task: 't', signal: 9}).record.desired).toBe('stopped');
});

test('a frozen container is thawed after a signal that ends it', () => {
  expect(kinds(view({status: 'paused', pid: 5}), {kind: 'stop', task: 't', signal: undefined, timeoutSeconds: null})).toEqual(['signal', 'resume', 'awaitExit']);
  expect(decide(view({status: 'running'}), {kind: 'stop', task: 't', signal: undefined, timeoutSeconds: -1}).actions.at(-1)).toMatchObject({withinMs: Infinity});
});

test('a stop while the policy waits ends the waiting', () => {
  const stopped = decide(view({status: 'restarting'}, {}, {policy: {Name: 'always'}}), {kind: 'stop', task: 't', signal: undefined, timeoutSeconds: null});
  expect(stopped.record.observation).toMatchObject({status: 'exited', stoppedByUser: true});
  expect(stopped.actions.map((a) => a.kind)).toEqual(['cancelRestart', 'cleanUp']);
});

describe('what is found at the agent\'s start', () => {
  const found = (status: 'none' | 'created' | 'running' | 'paused' | 'stopped', exitCode = 0) =>
    ({kind: 'found', task: {status, pid: 5, exitCode, exitedAt: AT}, at: AT, ranForMs: 0} as const);

  it('is taken up where it runs', () => {
    expect(kinds(view({status: 'running', pid: 5}), found('running'))).toEqual([]);
    const adopted = decide(view({status: 'created'}, {launching: true}), found('running'));
    expect(adopted.record).toMatchObject({launching: false, observation: {status: 'running', pid: 5}});
    expect(adopted.reports.map((r) => r.action)).toEqual(['start']);
  });
  it('has ended with the code that the runtime kept, or with 255', () => {
    expect(decide(view({status: 'running', pid: 5}), found('stopped', 7)).record.observation).toMatchObject({status: 'exited', exitCode: 7});
    expect(decide(view({status: 'running', pid: 5}), found('none')).record.observation).toMatchObject({status: 'exited', exitCode: UNSEEN_EXIT_CODE});
  });
  it('comes back after a reboot as the policy says, and is removed where that had begun', () => {
    const rebooted = {bootId: 'b2', policy: {Name: 'always'}} as const;
    expect(decide(view({status: 'exited', stoppedByUser: true}, {desired: 'stopped'}, rebooted), found('none')).record.observation.status).toBe('restarting');
    // Its address may be another's by now: somebody who knows has to start it, and is asked once.
    const attached: Partial<ContainerRecord> = {desired: 'stopped', launch: {networks: [], attachments: [{} as NetworkAttachment], ports: []}};
    const wants = decide(view({status: 'exited', stoppedByUser: true}, attached, rebooted), found('none'));
    expect(wants).toMatchObject({record: {bootId: 'b2', observation: {status: 'exited', wantsStart: true}}, reports: [{action: 'comeback'}], actions: [{kind: 'cleanUp', keepSandbox: false}]});
    expect(decide({...view({}, {}, rebooted), record: wants.record}, found('none')).reports).toEqual([]);
    expect(decide({...view({}, {}, rebooted), record: wants.record}, {kind: 'start', task: 't', launch: wants.record.launch!}).record.observation.wantsStart).toBeUndefined();
    // One that was running goes on by itself: nobody took anything from it.
    expect(decide(view({status: 'running', pid: 5}, {...attached, desired: 'running'}, rebooted), found('none')).record.observation).toMatchObject({status: 'restarting'});
    expect(decide(view({status: 'exited'}, {desired: 'stopped'}, {...rebooted, bootId: 'b1'}), found('none')).record.observation.status).toBe('exited');
    expect(kinds(view({status: 'exited'}, {removing: true}), found('none'))).toEqual(['erase']);
    expect(kinds(view({status: 'running', pid: 5}, {removing: true}), found('running'))).toEqual(['cancelRestart', 'signal', 'awaitExit', 'erase']);
  });
});

test('the generation rises with every report', () => {
  for (const event of [{kind: 'exit', exitCode: 0, at: AT, ranForMs: 0}, {kind: 'oom'}, {kind: 'kill', task: 't', signal: 9}, {kind: 'paused'}] as const) {
    const before = view({status: 'running', pid: 5, generation: 7});
    const {record, reports} = decide(before, event);
    expect(reports.length > 0 && record.observation.generation > 7).toBe(true);
  }
});

test('health: failures count after the start period, a success makes healthy at once', () => {
  const plan = healthPlan({Healthcheck: {Test: ['CMD-SHELL', 'true'], StartPeriod: 5e9, Retries: 2}})!;
  expect(plan).toMatchObject({args: ['/bin/sh', '-c', 'true'], intervalMs: 30_000, timeoutMs: 30_000, startIntervalMs: 5_000});
  expect(healthPlan({Healthcheck: {Test: ['NONE']}})).toBeUndefined();
  const probe = (exitCode: number) => ({start: AT, end: AT, exitCode, output: ''});
  let state = judge({status: 'starting', failingStreak: 0, log: []}, probe(1), plan, 1000);
  expect(state).toMatchObject({status: 'starting', failingStreak: 0});
  state = judge(judge(state, probe(1), plan, 6000), probe(1), plan, 7000);
  expect(state).toMatchObject({status: 'unhealthy', failingStreak: 2});
  for (let i = 0; i < 5; i += 1) state = judge(state, probe(0), plan, 8000);
  expect(state).toMatchObject({status: 'healthy', failingStreak: 0});
  expect(state.log).toHaveLength(5);
});

test('signals by name and number', () => {
  expect(['TERM', 'SIGTERM', '15', 'sigusr1', 'RTMIN+3', 'SIGRTMAX-1'].map(parseSignal)).toEqual([15, 15, 15, 10, 37, 63]);
  for (const bad of ['NOPE', '0', '65', 'RTMAX+1', '']) expect(() => parseSignal(bad)).toThrow(`invalid signal: ${bad}`);
});

test('ps\' table is cut into the container\'s rows', () => {
  const output = 'UID   PID CMD\nroot    1 init\nroot   42 sh -c "a  b"\nroot    - thread\nroot   43 x\n';
  expect(parsePs(output, [42])).toEqual({Titles: ['UID', 'PID', 'CMD'], Processes: [['root', '42', 'sh -c "a b"'], ['root', '-', 'thread']]});
  expect(() => parsePs('CMD\nx\n', [1])).toThrow("Couldn't find PID field in ps output");
});
