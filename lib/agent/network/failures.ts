/** What goes wrong between us and the machine's tools and kernel: the log is told what they said, clients that networking failed. */
import {CetusError, type ErrorKind} from '../../base/errors';

const SHOWN = 'failed to set up container networking; the logs of the node say more';

export function networkingFailed(message: string, {kind = 'internal', cause}: {kind?: ErrorKind; cause?: unknown} = {}): CetusError {
  return new CetusError(kind, message, {cause, shown: SHOWN});
}
