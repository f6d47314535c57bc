/** Fencing on a node whose containers are in control groups: the guard beside the agent, and the same kill by the agent itself. */
import {systemClock} from '../../base/clock';
import {CetusError} from '../../base/errors';
import {type Guard, type GuardOptions, ProcessGuard} from './guard-link';
import {killGroups} from './kill';

const TRIES = 100;
const PAUSE_MS = 20;

export function groupFencing(options: GuardOptions): {guard: Guard; kill(ids: string[]): Promise<void>} {
  return {
    guard: new ProcessGuard(options),
    async kill(ids) {
      let left = ids;
      for (let tries = 0; tries < TRIES; tries += 1) {
        left = killGroups(left.map((id) => `${options.cgroupParent}/${id}`)).map((group) => group.slice(options.cgroupParent.length + 1));
        if (!left.length) return;
        await systemClock.sleep(PAUSE_MS);
      }
      throw new CetusError('timeout', `containers that were killed have not ended: ${left.join(', ')}`);
    },
  };
}
