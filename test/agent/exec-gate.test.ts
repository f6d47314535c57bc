import {Execs, type ExecParts} from '../../lib/agent/exec/execs';
import {systemClock} from '../../lib/base/clock';
import {silentLog} from '../../lib/base/log';
import type {ContainerSpec} from '../../lib/schema/container';
import type {Ulimit} from '../../lib/schema/docker';
import {plainSpecs} from './node';

/** What the runtime hears of an exec that is put and started, in order. */
async function heard(Ulimits: Ulimit[]): Promise<string[]> {
  const calls: string[] = [];
  const execs = new Execs({
    runtime: {
      expectExec: () => {
        calls.push('expect');
        return () => calls.push('arrived');
      },
      exec: async () => {
        calls.push('exec');
        throw new Error('no such program');
      },
    },
    specs: plainSpecs, clock: systemClock, log: silentLog(), newId: () => 'new', store: {dir: () => '/nonexistent'}, reports: {exec: () => undefined},
    host: () => ({spec: {id: 'c1', hostConfig: {Ulimits}} as unknown as ContainerSpec, status: 'running', pid: 1}),
  } as unknown as ExecParts);
  execs.put('e1', 'c1', {Cmd: ['true']});
  await execs.start('e1', {detachKeys: '', consoleSize: null, detach: true}, undefined).catch(() => calls.push('refused'));
  return calls;
}

test('an exec is expected from its creation until it is there, also where it fails', async () => {
  expect(await heard([])).toEqual(['expect', 'arrived', 'expect', 'exec', 'arrived', 'refused']);
  expect(await heard([{Name: 'nofile', Soft: 512, Hard: 512}, {Name: 'core', Soft: 0, Hard: 1}])).toContain('expect');
});

test('not where runc must set a soft limit of open files after its child has raised it', async () => {
  expect(await heard([{Name: 'nofile', Soft: 512, Hard: 1024}])).toEqual(['exec', 'refused']);
});
