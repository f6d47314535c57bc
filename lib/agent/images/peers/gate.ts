/**
 * How many blobs a node serves at once, and to whom next: a bounded number in all and at most half of them to one peer, and a free place goes to the
 * waiting peer that is served least, so that one that asks for everything does not keep the others out. Who waits too long, or finds too many
 * waiting, is told so and may ask elsewhere.
 */
import {CetusError} from '../../../base/errors';

interface Waiter { peer: string; admit(): void }

const MOST_WAITING = 512;

export class TransferGate {
  private readonly served = new Map<string, number>();
  private running = 0;
  private waiting: Waiter[] = [];

  constructor(private readonly most: number) {}

  /** A place, to be given back by the call of what is returned; more than one call does no harm. */
  async enter(peer: string, waitMs: number, signal: AbortSignal): Promise<() => void> {
    signal.throwIfAborted();
    if (this.hasRoom(peer)) return this.take(peer);
    if (waitMs <= 0 || this.waiting.length >= MOST_WAITING) throw busy();
    return new Promise((resolve, reject) => {
      const leave = (why: unknown): void => {
        clearTimeout(timer);
        signal.removeEventListener('abort', onAbort);
        this.waiting = this.waiting.filter((w) => w !== waiter);
        reject(why as Error);
      };
      const onAbort = (): void => leave(signal.reason);
      const timer = setTimeout(() => leave(busy()), waitMs);
      const waiter: Waiter = {
        peer,
        admit: () => {
          clearTimeout(timer);
          signal.removeEventListener('abort', onAbort);
          resolve(this.take(peer));
        },
      };
      signal.addEventListener('abort', onAbort, {once: true});
      this.waiting.push(waiter);
    });
  }

  private hasRoom(peer: string): boolean {
    return this.running < this.most && this.of(peer) < Math.max(1, Math.floor(this.most / 2));
  }

  private of(peer: string): number {
    return this.served.get(peer) ?? 0;
  }

  private take(peer: string): () => void {
    this.running += 1;
    this.served.set(peer, this.of(peer) + 1);
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      this.running -= 1;
      if (this.of(peer) > 1) this.served.set(peer, this.of(peer) - 1);
      else this.served.delete(peer);
      this.admitNext();
    };
  }

  private admitNext(): void {
    let next: Waiter | undefined;
    for (const waiter of this.waiting) if (this.hasRoom(waiter.peer) && (!next || this.of(waiter.peer) < this.of(next.peer))) next = waiter;
    if (!next) return;
    this.waiting = this.waiting.filter((w) => w !== next);
    next.admit();
  }
}

function busy(): CetusError {
  return new CetusError('unavailable', 'this node serves as many blobs as it can', {info: {busy: true}});
}
