/** An operator at the command line: reads the view, computes the next state, declares it against the version that was read. */
import {asksPromotion, frozen, notAlone, roleOf, unfrozen, withoutDeposed, type ClusterState} from '../../../lib/manatee/state';
import {SimCoordination} from './coordination';
import type {FaultKind} from './faults';
import {Life} from './life';
import type {Machine} from './machine';
import type {World} from './world';

const TRIES = 5;

export class Operator {
  private readonly coordination: SimCoordination;
  private readonly life: Life;

  constructor(private readonly world: World) {
    const {ensemble, network, random, timeline, options} = world;
    this.life = new Life(timeline);
    this.coordination = new SimCoordination({ensemble, network, random, life: this.life, endpoint: 'operator', sessionTimeoutMs: options.sessionTimeoutMs, nowMs: () => timeline.nowMs});
  }

  order(kind: FaultKind, machine: Machine, forMs: number): void {
    const {id} = machine;
    switch (kind) {
      case 'freeze':
        this.change('freeze', (state) => frozen(state, 'maintenance', 'operator'));
        this.life.after(forMs, () => this.settle());
        return;
      case 'promoteSync': return this.change('promote', (state) => state.sync && asksPromotion(state, state.sync.id, 'operator'));
      case 'promoteAsync': return this.change('promote', (state) => state.async[0] && asksPromotion(state, state.async[0].id, 'operator'));
      case 'rebuild':
        void this.coordination.orderRebuild(id, true).catch(() => undefined);
        return;
      case 'forget': return this.change('forget', (state) => (roleOf(state, id) === 'deposed' && this.world.machines.get(id)!.removed ? withoutDeposed(state, id) : null));
      case 'notAlone': return this.change('end one-node-write mode', (state) => (state.oneNodeWriteMode ? notAlone(state) : null));
      default: return;
    }
  }

  /** Whatever the operator has stopped goes on. */
  settle(): void {
    this.change('unfreeze', (state) => (state.freeze || state.oneNodeWriteMode ? notAlone(unfrozen(state)) : null));
  }

  private change(reason: string, next: (state: ClusterState) => ClusterState | null | undefined, tries = TRIES): void {
    const attempt = async (): Promise<void> => {
      const view = await this.coordination.view();
      const after = view.state && next(view.state);
      if (!after || after === view.state) return;
      await this.coordination.declare({next: after, version: view.version, absent: [], entry: {at: 'now', by: 'operator', reason}});
    };
    attempt().catch(() => {
      if (tries > 1) this.life.after(300, () => this.change(reason, next, tries - 1));
    });
  }
}
