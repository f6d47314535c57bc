/** Who is measured when: one sampler for all who watch, on a clock of the test's own. */
import {StatsCollector, type Watched} from '../../../lib/agent/stats/collector';
import type {Meter} from '../../../lib/agent/stats/meter';
import type {Sample} from '../../../lib/agent/stats/sample';
import {until} from '../../harness/wait';

class Rounds {
  private sleepers: {wake(): void; fail(err: unknown): void}[] = [];
  now = (): number => 0;
  nowNs = (): bigint => 0n;
  sleep = (_ms: number, signal?: AbortSignal): Promise<void> => new Promise((wake, fail) => {
    this.sleepers.push({wake, fail});
    signal?.addEventListener('abort', () => fail(signal.reason), {once: true});
  });
  tick(): void {
    for (const {wake} of this.sleepers.splice(0)) wake();
  }
}

function world(): {clock: Rounds; collector: StatsCollector; measured: string[]; containers: Map<string, Watched>} {
  const clock = new Rounds();
  const measured: string[] = [];
  const containers = new Map<string, Watched>([['a', {id: 'a', running: true, pid: 7, ownNetwork: true}]]);
  const meter: Meter = {
    machine: () => ({systemCpu: 0n, onlineCpus: 1, memory: 0n}),
    container: (id) => {
      measured.push(id);
      return {usage: {} as never, networks: {}};
    },
  };
  return {clock, measured, containers, collector: new StatsCollector({meter, clock, look: (id) => containers.get(id)})};
}

/** Reads what comes until the watching ends. */
function watch(collector: StatsCollector, id = 'a'): {got: (Sample | undefined)[]; leave: AbortController; over: Promise<void>} {
  const got: (Sample | undefined)[] = [];
  const leave = new AbortController();
  const over = (async () => {
    for await (const sample of collector.samples(id, leave.signal)) got.push(sample);
  })();
  return {got, leave, over};
}

describe('the collector', () => {
  it('measures once a round for all who watch, at once for the first, and not at all for nobody', async () => {
    const {clock, collector, measured} = world();
    const one = watch(collector);
    const two = watch(collector);
    await until('both have the first', () => one.got.length === 1 && two.got.length === 1);
    expect(measured).toEqual(['a']);
    clock.tick();
    await until('both have the second', () => one.got.length === 2 && two.got.length === 2);
    expect(measured).toEqual(['a', 'a']);
    one.leave.abort();
    await one.over;
    expect(collector.active).toBe(1);
    two.leave.abort();
    await two.over;
    expect(collector.active).toBe(0);
  });

  it('a container that stops gives nothing, is found again when it starts, and its removal ends the watching', async () => {
    const {clock, collector, containers} = world();
    const {got, over} = watch(collector);
    const running = containers.get('a')!;
    await until('the first', () => got.length === 1);
    containers.set('a', {...running, running: false});
    clock.tick();
    await until('the second', () => got.length === 2);
    containers.set('a', running);
    clock.tick();
    await until('the third', () => got.length === 3);
    expect(got.map((sample) => sample !== undefined)).toEqual([true, false, true]);
    containers.delete('a');
    clock.tick();
    await over;
    expect([got.length, collector.active]).toEqual([3, 0]);
  });

  it('a reader that is slow misses rounds and holds nobody up', async () => {
    const {clock, collector, measured} = world();
    const leave = new AbortController();
    const slow = collector.samples('a', leave.signal);
    await slow.next();
    const {got, leave: done, over} = watch(collector);
    for (let round = 2; round < 6; round += 1) {
      await until('a round', () => got.length === round - 1);
      clock.tick();
    }
    await until('all rounds', () => got.length === 5);
    expect(measured).toHaveLength(5);
    const pending = slow.next();
    clock.tick();
    expect((await pending).done).toBe(false);
    leave.abort();
    done.abort();
    await Promise.all([over, slow.return(undefined)]);
    expect(collector.active).toBe(0);
  });
});
