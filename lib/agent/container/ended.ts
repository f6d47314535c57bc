/** A process may end while something is on its way to it; the runtime then knows nothing of it, and says so in words of its own. */
import {asCetusError, CetusError} from '../../base/errors';

/** As the Engine says it. */
export function notRunning(containerId: string, cause?: unknown): CetusError {
  return new CetusError('conflict', `container ${containerId} is not running`, {cause});
}

/** For `catch`: throws that the container is not running where the runtime has nothing (any more), and everything else as it is. */
export function endedMeanwhile(containerId: string): (err: unknown) => never {
  return (err) => {
    throw asCetusError(err).kind === 'notFound' ? notRunning(containerId, err) : err;
  };
}
