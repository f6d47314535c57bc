/** Work in turns, by key: what is done to one thing is done one at a time, in the order in which it was asked for, whatever becomes of the one before. */
export class Turns {
  private readonly last = new Map<string, Promise<unknown>>();

  hold<T>(key: string, work: () => Promise<T>): Promise<T> {
    const before = this.last.get(key) ?? Promise.resolve();
    const mine = before.then(work, work);
    this.last.set(key, mine);
    const clear = (): void => {
      if (this.last.get(key) === mine) this.last.delete(key);
    };
    mine.then(clear, clear);
    return mine;
  }

  /** What was asked for until now has ended, well or not. */
  async settled(): Promise<void> {
    await Promise.allSettled(this.last.values());
  }
}
