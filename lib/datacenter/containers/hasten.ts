/**
 * A stop that is ready to wait long holds the container's lock as long. In the Engine it holds nothing: a removal by force kills at once, and another stop gives
 * the container its own grace. So whoever comes second waits for the lock as long as that allows, and then kills, which has a lock of its own: the first stop ends with it.
 */
import {isCetusError} from '../../base/errors';
import {graceMsOf} from '../../schema/chains';
import type {Container} from '../../schema/container';
import {isBusy} from '../../workflow/busy';
import type {Context} from '../context';
import type {Caller} from '../verbs';

/** For what lasts a moment: nobody is killed for its sake. */
export const A_MOMENT_MS = 250;

/** As a stop that finds nobody in its way would give the container. */
export const graceMs = (c: Container, timeoutSeconds: number | undefined): number => graceMsOf(timeoutSeconds, c.spec.config.StopTimeout) + A_MOMENT_MS;

/** `work` gets how long it may wait for the lock; undefined: as long as others do. */
export async function hastened(context: Context, caller: Caller, c: Container, waitMs: number, work: (lockWaitMs?: number) => Promise<unknown>): Promise<void> {
  try {
    await work(waitMs);
  } catch (err) {
    if (!isBusy(err)) throw err;
    // It may have ended by now, or be out of reach, which `work` says in its own words.
    await context.run(caller, 'container.kill', {containerId: c.id, signal: 'KILL'}).catch((failed: unknown) => {
      if (!isCetusError(failed)) throw failed;
      context.log.debug({err: failed, containerId: c.id, requestId: caller.requestId}, 'killing what another job waits for');
    });
    await work();
  }
}
