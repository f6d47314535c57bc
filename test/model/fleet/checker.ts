/**
 * What must hold: no two machines run one container; a machine that is called fenced runs nothing that is marked; in the end each container runs.
 *
 * Excused is what a machine runs that stood still as a whole and woke a moment ago: nothing can stop the instructions that it goes on with before its guard has looked.
 */
import type {Machine} from './machine';
import type {World} from './world';

export interface Violation { kind: 'twice' | 'fenced' | 'progress'; what: string; atMs: number }

/** A look of the guard and a kill, by the slowest clock. */
const WAKING_MS = 400;

export class Checker {
  violation: Violation | undefined;

  constructor(private readonly world: World) {}

  began(_at: Machine, id: string): void {
    this.once(id);
  }

  woke(machine: Machine): void {
    this.world.timeline.after(WAKING_MS + 1, () => {
      for (const id of machine.units.keys()) this.once(id);
    });
  }

  /** At the commit. */
  fenced(machine: Machine): void {
    if (this.excused(machine)) return;
    for (const unit of machine.units.values()) if (unit.marked && machine.running(unit.id)) this.violate('fenced', `${machine.name} is called fenced and runs ${unit.id}`);
  }

  /** Where it does not run once, after all trouble is over. */
  ended(ids: readonly string[]): void {
    for (const id of ids) {
      const where = this.world.machines.filter((machine) => machine.running(id));
      if (where.length !== 1) this.violate('progress', `${id} runs on ${where.length ? where.map((m) => m.name).join(', ') : 'no node'}`);
    }
  }

  settled(ids: readonly string[]): boolean {
    return ids.every((id) => this.world.machines.filter((machine) => machine.running(id)).length === 1);
  }

  private once(id: string): void {
    const where = this.world.machines.filter((machine) => machine.running(id) && !this.excused(machine));
    if (where.length > 1) this.violate('twice', `${id} runs on ${where.map((machine) => machine.name).join(' and ')}`);
  }

  private excused(machine: Machine): boolean {
    return this.world.timeline.nowMs - machine.wokeMs <= WAKING_MS;
  }

  private violate(kind: Violation['kind'], what: string): void {
    this.world.trace('CHECKER', () => `${kind}: ${what}`);
    this.violation ??= {kind, what, atMs: this.world.timeline.nowMs};
    this.world.timeline.halt();
  }
}
