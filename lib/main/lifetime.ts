/**
 * How every long-running process of ours begins and ends: it says "ready" to whoever started it, and it ends in good order on SIGTERM,
 * SIGINT, or when that parent is gone. A fault that nobody caught ends the process with a record of why: its supervisor starts a new one,
 * and the store knows where to go on.
 */
import type {Log} from '../base/log';

const STOP_TIMEOUT_MS = 6_000;

export function live(log: Log, stop: () => Promise<void>, ready: Record<string, unknown> = {}, stopTimeoutMs = STOP_TIMEOUT_MS): void {
  let ending = false;
  const end = (why: string, status: number): void => {
    if (ending) return;
    ending = true;
    log.info({why}, 'stopping');
    const timer = setTimeout(() => {
      log.error('did not stop in time');
      process.exit(1);
    }, stopTimeoutMs);
    timer.unref();
    stop().then(() => process.exit(status), (err: unknown) => {
      log.error({err}, 'stop');
      process.exit(1);
    });
  };
  process.once('SIGTERM', () => end('SIGTERM', 0));
  process.once('SIGINT', () => end('SIGINT', 0));
  process.once('disconnect', () => end('the parent is gone', 0));
  process.send?.({...ready, ready: true});
}

export function failLoudly(log: Log): void {
  process.on('uncaughtException', (err) => {
    log.fatal({err}, 'uncaught exception');
    process.exit(70);
  });
  process.on('unhandledRejection', (err) => {
    log.fatal({err}, 'unhandled rejection');
    process.exit(70);
  });
}
