import {appendFileSync, mkdtempSync, rmSync, truncateSync, statSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {systemClock} from '../../../lib/base/clock';
import {CetusError} from '../../../lib/base/errors';
import {silentLog} from '../../../lib/base/log';
import {ReportLedger} from '../../../lib/agent/ledger/reports';
import {TaskLedger} from '../../../lib/agent/ledger/tasks';
import type {Report} from '../../../lib/schema/agent';
import {RecordingSink, task, until} from '../node';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'cetus-ledger-'));
});
afterEach(() => rmSync(dir, {recursive: true, force: true}));

describe('answers of tasks', () => {
  const body = {kind: 'container.pause', containerId: 'c'} as const;
  const path = (): string => join(dir, 'tasks.log');

  it('are given once, also concurrently and after a restart', async () => {
    let done = 0;
    const work = async (): Promise<{mountpoint: string}> => {
      await new Promise((resolve) => setImmediate(resolve));
      return {mountpoint: String((done += 1))};
    };
    let ledger = new TaskLedger(path());
    const answers = await Promise.all([ledger.run(task(body), work), ledger.run(task(body), work)]);
    ledger.close();
    appendFileSync(path(), '{"jobId":"j1","st');
    ledger = new TaskLedger(path());
    answers.push(await ledger.run(task(body), work));
    expect(answers).toEqual(Array(3).fill({ok: true, output: {mountpoint: '1'}}));
    expect(await ledger.run(task(body, {step: 'other'}), work)).toEqual({ok: true, output: {mountpoint: '2'}});
    ledger.close();
    ledger = new TaskLedger(path());
    expect(await ledger.run(task(body, {step: 'other'}), work)).toEqual({ok: true, output: {mountpoint: '2'}});
    ledger.close();
  });

  it('are refused to an older epoch, also after a restart', async () => {
    const work = async (): Promise<object> => ({});
    let ledger = new TaskLedger(path());
    await ledger.run(task(body, {epoch: 5}), work);
    ledger.close();
    ledger = new TaskLedger(path());
    expect(await ledger.run(task(body, {epoch: 4, step: 'new'}), work)).toMatchObject({ok: false, error: {kind: 'stale'}});
    expect(await ledger.run(task(body, {epoch: 6, step: 'new'}), work)).toMatchObject({ok: true});
    ledger.close();
  });

  it('keep final errors and forget curable ones', async () => {
    const ledger = new TaskLedger(path());
    const fail = (kind: 'conflict' | 'unavailable') => async (): Promise<object> => {
      throw new CetusError(kind, 'no');
    };
    const works = async (): Promise<object> => ({});
    await ledger.run(task(body, {step: 'a'}), fail('conflict'));
    expect(await ledger.run(task(body, {step: 'a'}), works)).toMatchObject({ok: false, error: {kind: 'conflict'}});
    await ledger.run(task(body, {step: 'b'}), fail('unavailable'));
    expect(await ledger.run(task(body, {step: 'b'}), works)).toMatchObject({ok: true});
    ledger.close();
  });

  it('are forgotten oldest first beyond the bound', async () => {
    const ledger = new TaskLedger(path(), 2);
    let done = 0;
    const work = async (): Promise<object> => ({mountpoint: String((done += 1))});
    for (const jobId of ['j1', 'j2', 'j3']) await ledger.run(task(body, {jobId}), work);
    expect(await ledger.run(task(body, {jobId: 'j3'}), work)).toMatchObject({output: {mountpoint: '3'}});
    expect(await ledger.run(task(body, {jobId: 'j1'}), work)).toMatchObject({output: {mountpoint: '4'}});
    ledger.close();
  });
});

describe('reports', () => {
  const path = (): string => join(dir, 'reports.log');
  const open = (): ReportLedger => new ReportLedger(path(), systemClock, silentLog(), {nodeId: () => 'n1', bootGeneration: () => 1});

  it('are kept over deafness, restarts and torn lines, and arrive once, in order', async () => {
    const sink = new RecordingSink();
    sink.deaf = true;
    let ledger = open();
    ledger.begin(sink);
    for (let i = 0; i < 5; i += 1) ledger.exec(`e${i}`, 'c', 0);
    await ledger.close();
    truncateSync(path(), statSync(path()).size - 5);
    ledger = open();
    expect(ledger.waiting.map((report) => report.seq)).toEqual([1, 2, 3, 4]);
    for (let i = 5; i < 1200; i += 1) ledger.exec(`e${i}`, 'c', 0);
    sink.deaf = false;
    ledger.begin(sink);
    await ledger.settled();
    await ledger.close();
    expect(sink.reports_.map((report) => report.seq)).toEqual(Array.from({length: 1199}, (_, i) => i + 1));
    ledger = open();
    expect(ledger.waiting).toEqual([]);
    ledger.exec('next', 'c', 0);
    expect(ledger.lastSeq).toBe(1200);
    await ledger.close();
  });

  it('leave in the tick in which they were made', async () => {
    const sink = new RecordingSink();
    const ledger = open();
    ledger.begin(sink);
    ledger.exec('e', 'c', 0);
    expect(sink.reports_).toHaveLength(1);
    await ledger.close();
  });

  it('are numbered behind what the control plane knows where our disk lost its end', async () => {
    const taken: Report[] = [];
    let known = 40;
    const sink = Object.assign(new RecordingSink(), {
      reports: async ({reports}: {reports: Report[]}) => {
        for (const report of reports) if (report.seq > known) {
          taken.push(report);
          known = report.seq;
        }
        return {ackedSeq: known};
      },
    });
    const ledger = open();
    ledger.begin(sink);
    ledger.exec('a', 'c', 0);
    ledger.exec('b', 'c', 0);
    await until('taken', () => taken.length === 2);
    expect(taken.map((report) => report.seq)).toEqual([41, 42]);
    await ledger.close();
  });
});
