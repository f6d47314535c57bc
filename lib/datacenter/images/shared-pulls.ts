/**
 * Pulls of the same image by several clients of this process: one job serves them all, each gets the progress, and the job is withdrawn when the
 * last of them has hung up, so that nothing is downloaded for nobody. Who comes later is shown first where every layer stands.
 * Clients with other credentials do not share: what one may read is no matter of the other's.
 */
import {CetusError} from '../../base/errors';
import type {ProgressMessage} from '../../schema/docker';
import {followProgress} from './progress';

type Listener = (message: unknown) => void;
interface Shared<R> { outcome: Promise<R>; listeners: Set<Listener>; /** the last line of each layer */ latest: Map<string, unknown>; nobody: AbortController }

export class SharedPulls<R> {
  private readonly running = new Map<string, Shared<R>>();

  /** `begin` runs the job; its signal says that nobody waits any more. */
  follow(key: string, signal: AbortSignal | undefined, begin: (onProgress: Listener, signal: AbortSignal) => Promise<R>): AsyncGenerator<ProgressMessage, R> {
    return followProgress((onProgress) => this.join(key, signal, onProgress, begin));
  }

  private join(key: string, signal: AbortSignal | undefined, listener: Listener, begin: (onProgress: Listener, signal: AbortSignal) => Promise<R>): Promise<R> {
    const shared = this.running.get(key) ?? this.begin(key, begin);
    // Also what the beginning itself has said, before anybody could listen.
    for (const line of shared.latest.values()) listener(line);
    shared.listeners.add(listener);
    return new Promise<R>((resolve, reject) => {
      const leave = (): void => {
        shared.listeners.delete(listener);
        if (shared.listeners.size === 0) {
          this.drop(key, shared);
          shared.nobody.abort(new CetusError('canceled', 'the client left'));
        }
        reject(signal!.reason as Error);
      };
      if (signal?.aborted) return leave();
      signal?.addEventListener('abort', leave, {once: true});
      void shared.outcome.then(resolve, reject).finally(() => signal?.removeEventListener('abort', leave));
    });
  }

  private begin(key: string, begin: (onProgress: Listener, signal: AbortSignal) => Promise<R>): Shared<R> {
    const listeners = new Set<Listener>();
    const latest = new Map<string, unknown>();
    const nobody = new AbortController();
    const tell = (message: unknown): void => {
      const {id} = message as ProgressMessage;
      if (id !== undefined) latest.set(id, message);
      for (const listener of listeners) listener(message);
    };
    const shared: Shared<R> = {listeners, latest, nobody, outcome: begin(tell, nobody.signal).finally(() => this.drop(key, shared))};
    this.running.set(key, shared);
    return shared;
  }

  private drop(key: string, shared: Shared<R>): void {
    if (this.running.get(key) === shared) this.running.delete(key);
  }
}
