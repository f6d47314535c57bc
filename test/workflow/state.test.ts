import fc from 'fast-check';
import {next} from '../../lib/workflow/next';
import {isEnded, transition, type JobEvent} from '../../lib/workflow/state';
import type {Chain} from '../../lib/workflow/chain';
import type {Job, JobExecution, StepState} from '../../lib/schema/job';

const steps = ['one', 'two', 'three'];
const at = '2026-01-01T00:00:00.000000000Z';
const error = {kind: 'internal' as const, message: 'no'};

const event: fc.Arbitrary<JobEvent> = fc.oneof(
  fc.constant<JobEvent>({type: 'claim', runner: 'r', untilMs: 1, at}), fc.constant<JobEvent>({type: 'renew', untilMs: 2}),
  fc.constant<JobEvent>({type: 'request-cancel'}), fc.constant<JobEvent>({type: 'unwind', error}), fc.constant<JobEvent>({type: 'succeed', result: 1, at}),
  fc.constant<JobEvent>({type: 'end-unwound', at}), fc.constant<JobEvent>({type: 'get-stuck', at}), fc.constant<JobEvent>({type: 'retry-stuck'}),
  fc.constantFrom(...steps).chain((step) => fc.constantFrom<JobEvent>(
    {type: 'start', step, at}, {type: 'succeed-step', step, output: 1, at}, {type: 'fail-step', step, error, at}, {type: 'start-undo', step, at},
    {type: 'undone', step, at}, {type: 'undo-failed', step, error, at})),
);

const job: fc.Arbitrary<Job> = fc.record({
  execution: fc.constantFrom<JobExecution>('queued', 'running', 'unwinding', 'succeeded', 'failed', 'canceled', 'stuck'),
  lease: fc.option(fc.record({runner: fc.constant('r'), epoch: fc.nat(5), untilMs: fc.nat(10)})),
  cancelRequested: fc.boolean(),
  records: fc.subarray(steps).chain((names) => fc.tuple(...names.map((step) => fc.record({
    step: fc.constant(step), state: fc.constantFrom<StepState>('started', 'succeeded', 'failed', 'undoing', 'undone', 'undo-failed'), tries: fc.nat(8),
  })))),
}).map(({records, ...part}): Job => ({
  id: 'j', workflow: 'w', version: 1, target: 't', account: 'a', params: {}, revision: 0, requestId: 'r', createdAt: at, createdAtNs: '1', ...part,
  steps: records.map((r) => ({...r, epoch: 1, startedAt: at})),
}));

const chain: Chain = {
  name: 'w', version: 1, target: () => 't',
  steps: [
    {kind: 'plan', name: 'one', plan: async () => ({}), undo: async () => ({})}, {kind: 'act', name: 'two', do: async () => undefined, undo: async () => undefined},
    {kind: 'act', name: 'three', do: async () => undefined},
  ],
};

describe('the state table', () => {
  it('is total: every job and event give a job or an error that names the job, and never change what they were given', () => {
    fc.assert(fc.property(job, event, (j, e) => {
      const before = JSON.stringify(j);
      const result = transition(j, e);
      expect(JSON.stringify(j)).toBe(before);
      if (!result.ok) expect(result.error.message).toContain('job j');
    }), {numRuns: 2000});
  });

  it('never leaves an end, but for a stuck job that is told to try again', () => {
    fc.assert(fc.property(job.filter(isEnded), event, (j, e) => {
      const result = transition(j, e);
      if (result.ok) expect([j.execution, e.type]).toEqual(['stuck', 'retry-stuck']);
    }), {numRuns: 2000});
  });

  it('never lowers an epoch, and changes one record at most', () => {
    fc.assert(fc.property(job, event, (j, e) => {
      const result = transition(j, e);
      if (!result.ok) return;
      if (result.job.lease && j.lease) expect(result.job.lease.epoch - j.lease.epoch).toBe(e.type === 'claim' ? 1 : 0);
      if (e.type === 'retry-stuck') return;
      const changed = result.job.steps.filter((s) => JSON.stringify(s) !== JSON.stringify(j.steps.find((o) => o.step === s.step)));
      expect(changed.length).toBeLessThanOrEqual('step' in e ? 1 : 0);
    }), {numRuns: 2000});
  });
});

describe('the next move', () => {
  it('is always one that the state table allows, so that a job goes on to its end', () => {
    const outcome = fc.constantFrom<'ok' | 'fail' | 'crash' | 'cancel'>('ok', 'fail', 'crash', 'cancel');
    fc.assert(fc.property(fc.infiniteStream(outcome), (luck) => {
      const dice = luck[Symbol.iterator]();
      let current = must({...base, execution: 'queued'}, {type: 'claim', runner: 'r', untilMs: 1, at});
      let bad = 0;
      for (let n = 0; n < 200; n += 1) {
        const move = next(current, chain, {undoTries: 3});
        // Luck turns in the end: what keeps failing for ever is stuck, and tested elsewhere.
        const roll = bad > 8 ? 'ok' : (dice.next().value as 'ok');
        if (roll !== 'ok') bad += 1;
        if (roll === 'crash' as string && move.move !== 'rest') { current = must(current, {type: 'claim', runner: 's', untilMs: 1, at}); continue; }
        if (roll === 'cancel' as string && current.execution === 'running') current = must(current, {type: 'request-cancel'});
        switch (move.move) {
          case 'plan': current = must(current, roll === 'ok' ? {type: 'succeed-step', step: move.step.name, output: 1, at} : {type: 'fail-step', step: move.step.name, error, at}); break;
          case 'act':
            current = must(current, {type: 'start', step: move.step.name, at});
            current = must(current, roll === 'ok' ? {type: 'succeed-step', step: move.step.name, output: 1, at} : {type: 'fail-step', step: move.step.name, error, at});
            break;
          case 'unwind': current = must(current, {type: 'unwind', error: move.error}); break;
          case 'undo-plan': case 'undo-act':
            current = must(current, {type: 'start-undo', step: move.step.name, at});
            current = must(current, roll === 'ok' ? {type: 'undone', step: move.step.name, at} : {type: 'undo-failed', step: move.step.name, error, at});
            break;
          case 'succeed': current = must(current, {type: 'succeed', result: move.result, at}); break;
          case 'end-unwound': current = must(current, {type: 'end-unwound', at}); break;
          case 'get-stuck': current = must(current, {type: 'get-stuck', at}); break;
          case 'rest':
            expect(isEnded(current)).toBe(true);
            return;
        }
      }
      throw new Error(`no end in sight: ${JSON.stringify(current)}`);
    }));
  });
});

const base: Job = {
  id: 'j', workflow: 'w', version: 1, target: 't', account: 'a', params: {}, execution: 'queued', steps: [], lease: null, revision: 0, cancelRequested: false,
  requestId: 'r', createdAt: at, createdAtNs: '1',
};
function must(j: Job, e: JobEvent): Job {
  const result = transition(j, e);
  if (!result.ok) throw result.error;
  return result.job;
}
