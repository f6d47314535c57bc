import {Pace} from '../../../lib/agent/images/pace';
import {systemClock} from '../../../lib/base/clock';

/** Time that passes only as far as the test lets it; what arrives meanwhile is the test's too. */
class Time {
  ms = 0;
  private readonly sleepers: {until: number; wake(): void}[] = [];
  readonly clock = {...systemClock, now: () => this.ms, nowNs: () => BigInt(this.ms) * 1_000_000n, sleep: (ms: number) => new Promise<void>((wake) => this.sleepers.push({until: this.ms + ms, wake}))};
  async pass(ms: number, each: () => void = () => undefined): Promise<void> {
    for (const end = this.ms + ms; this.ms < end;) {
      this.ms += 10;
      each();
      for (const s of this.sleepers.filter((one) => one.until <= this.ms)) s.wake();
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
}

describe('the pace of a pull', () => {
  const signal = new AbortController().signal;
  const setup = async (): Promise<{time: Time; pace: Pace; started: number[]}> => {
    const time = new Time();
    const pace = new Pace(time.clock);
    const started: number[] = [];
    for (const n of [0, 1, 2]) void pace.start(signal).then(() => started.push(n));
    await time.pass(0);
    await new Promise((resolve) => setImmediate(resolve));
    return {time, pace, started};
  };

  test('the first starts at once, the others when the line has room, one after the other', async () => {
    const {time, pace, started} = await setup();
    expect(started).toEqual([0]);
    await time.pass(60, () => pace.arrived(10_000));
    expect(started).toEqual([0, 1]);
    await time.pass(60, () => pace.arrived(10_000));
    expect(started).toEqual([0, 1, 2]);
  });

  test('while one fills the line the others wait for its end, and no longer', async () => {
    const {time, pace, started} = await setup();
    await time.pass(1000, () => pace.arrived(2_000_000));
    expect(started).toEqual([0]);
    pace.end();
    await new Promise((resolve) => setImmediate(resolve));
    expect(started).toEqual([0, 1]);
    await time.pass(1000, () => pace.arrived(2_000_000));
    expect(started).toEqual([0, 1]);
  });
});
