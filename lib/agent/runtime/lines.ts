/**
 * One at a time of a key, first come first served; different keys side by side. For the starts of a container's execs: its shim makes one after the other
 * in any case, under a lock that the exits of all its processes wait for too. Orders that queue up there keep the exits waiting, the shim gives each
 * of those a second, and with a hundred orders nothing moves any more until containerd's callers give up.
 */
export class Lines {
  private readonly tails = new Map<string, Promise<void>>();

  async inLine<T>(key: string, work: () => Promise<T>): Promise<T> {
    const result = (this.tails.get(key) ?? Promise.resolve()).then(work);
    const tail = result.then(() => undefined, () => undefined);
    this.tails.set(key, tail);
    try {
      return await result;
    } finally {
      if (this.tails.get(key) === tail) this.tails.delete(key);
    }
  }
}
