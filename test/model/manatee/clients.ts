/**
 * Writers. Each finds the primary in ZooKeeper, later or sooner than it changes, and now and then tries anybody: whoever lets it in must be right.
 * Where the answer does not come it gives the write up, outcome unknown, and goes on with another one.
 */
import type {Machine} from './machine';
import type {World} from './world';

const GIVE_UP_MS = 4_000;

export class Writer {
  private known: string | null = null;
  private knownAtMs = -Infinity;
  private serial = 0;
  acknowledged = 0;

  constructor(private readonly world: World, private readonly number: number, private readonly thinkMs: number) {
    world.timeline.after(world.random.between(0, thinkMs), () => this.write());
  }

  private write(): void {
    const {world} = this;
    const machine = this.target();
    const again = (delayMs: number): void => {
      world.timeline.after(delayMs, () => this.write());
    };
    if (!machine) return again(this.thinkMs);
    let over = false;
    const end = (delayMs: number): void => {
      if (over) return;
      over = true;
      again(delayMs);
    };
    const giveUp = world.timeline.after(GIVE_UP_MS, () => end(0));
    const overrides = world.random.chance(0.3);
    world.timeline.after(world.random.latency(0.5), () => {
      const run = machine.postgres.run;
      const refused = (): void => {
        giveUp.cancelled = true;
        this.knownAtMs = -Infinity;
        end(world.random.between(50, 250));
      };
      if (!run || run.phase !== 'running') return refused();
      // Who stands still answers nobody.
      run.life.deliver(() => {
        if (over) return;
        if (!world.mutant.admits(machine, overrides) || run.inRecovery || run.stopping) return refused();
        run.commit(this.number * 1_000_000 + ++this.serial, () => {
          giveUp.cancelled = true;
          this.acknowledged += 1;
          end(world.random.between(this.thinkMs / 2, this.thinkMs * 1.5));
        });
      });
    });
  }

  private target(): Machine | undefined {
    const {world} = this;
    const {random, timeline, ensemble, machines} = world;
    if (random.chance(0.15)) return random.pick([...machines.values()]);
    if (timeline.nowMs - this.knownAtMs > 500 && ensemble.up) {
      this.known = ensemble.state?.primary.id ?? null;
      this.knownAtMs = timeline.nowMs + random.between(0, 300);
    }
    return this.known === null ? undefined : machines.get(this.known);
  }
}
