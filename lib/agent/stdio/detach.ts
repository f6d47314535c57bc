/**
 * Detach keys ("ctrl-p,ctrl-q") in a terminal's input, on any chunking. Pure. Keys that began a sequence and did not complete it are passed on,
 * as the Engine does; those that completed it are swallowed. Only terminals are watched: elsewhere the bytes are data.
 */
import {CetusError} from '../../base/errors';

const DEFAULT_DETACH_KEYS = 'ctrl-p,ctrl-q';

/** `what`: the Engine calls them otherwise for an exec than for an attach. */
export function parseDetachKeys(text: string, what: 'detach' | 'escape' = 'detach'): number[] {
  return (text || DEFAULT_DETACH_KEYS).split(',').map((key) => {
    if (key.length === 1) return key.charCodeAt(0);
    const match = /^ctrl-([a-zA-Z@[\]^_\\])$/.exec(key);
    if (!match) throw new CetusError('invalid', `Invalid ${what} keys (${text}) provided`);
    return match[1]!.toUpperCase().charCodeAt(0) & 0x1f;
  });
}

export class DetachWatcher {
  private matched = 0;

  constructor(private readonly keys: readonly number[]) {}

  /** The bytes to pass on, and whether the sequence was completed: what follows it in the chunk is dropped. */
  feed(chunk: Buffer): {pass: Buffer; detached: boolean} {
    const {keys} = this;
    if (keys.length === 0) return {pass: chunk, detached: false};
    // Nothing begun and no first key in sight: the chunk goes through as it is.
    if (this.matched === 0 && !chunk.includes(keys[0]!)) return {pass: chunk, detached: false};
    const out: number[] = [];
    for (const byte of chunk) {
      if (byte === keys[this.matched]) {
        this.matched += 1;
        if (this.matched === keys.length) return {pass: Buffer.from(out), detached: true};
        continue;
      }
      for (let k = 0; k < this.matched; k += 1) out.push(keys[k]!);
      this.matched = byte === keys[0] ? 1 : 0;
      if (this.matched === 0) out.push(byte);
      else if (keys.length === 1) return {pass: Buffer.from(out), detached: true};
    }
    return {pass: Buffer.from(out), detached: false};
  }

  /** Keys held back when the input ends. */
  end(): Buffer {
    const held = Buffer.from(this.keys.slice(0, this.matched));
    this.matched = 0;
    return held;
  }
}
