/**
 * What ends a sleep before its time (coordination.ts, Monotonic). An AbortSignal is an Interruption too. The sitter has its own: it makes two for each of
 * its turns, and an AbortSignal, an EventTarget that the collector has to watch, is a quarter of what a simulated schedule costs.
 */
export interface Interruption {
  readonly aborted: boolean;
  addEventListener(type: 'abort', listener: () => void, options?: {once?: boolean}): void;
  removeEventListener(type: 'abort', listener: () => void): void;
}

export class Interrupt implements Interruption {
  aborted = false;
  /** Each is called once, since it happens once. */
  private listeners: (() => void)[] = [];

  abort(): void {
    if (this.aborted) return;
    this.aborted = true;
    const told = this.listeners;
    this.listeners = [];
    for (const listener of told) listener();
  }

  addEventListener(_type: 'abort', listener: () => void): void {
    this.listeners.push(listener);
  }

  removeEventListener(_type: 'abort', listener: () => void): void {
    const at = this.listeners.indexOf(listener);
    if (at >= 0) this.listeners.splice(at, 1);
  }
}
