/**
 * Tests wait for states, never for time: `until` polls a condition with a bound and says what it last saw. The bound only turns a hang into a
 * failure: a state that comes within a second takes many where machine and disk are everybody's.
 */
const FIRST_PAUSE_MS = 20;
/** A probe is often a process of its own. What has not come for a while is asked for less often, and is seen a tenth of its time later at most. */
const LONGEST_PAUSE_MS = 500;

/** Thrown by a probe for which waiting longer makes no sense. */
export class Hopeless extends Error {}

export async function until<T>(what: string, probe: () => Promise<T | undefined | false | null> | T | undefined | false | null, timeoutMs = 40_000): Promise<T> {
  const from = Date.now();
  const deadline = from + timeoutMs;
  let last: unknown;
  for (;;) {
    try {
      const value = await probe();
      if (value) return value;
      last = value;
    } catch (err) {
      if (err instanceof Hopeless) throw err;
      last = err;
    }
    if (Date.now() > deadline) throw new Error(`gave up waiting for ${what} after ${timeoutMs} ms; last: ${last instanceof Error ? last.stack : JSON.stringify(last)}`);
    await new Promise((resolve) => setTimeout(resolve, Math.min(LONGEST_PAUSE_MS, Math.max(FIRST_PAUSE_MS, (Date.now() - from) / 10))));
  }
}
