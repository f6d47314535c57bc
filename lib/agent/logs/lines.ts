/** A stream's chunks cut into lines of at most 16 KiB, as the Engine's copier does; an open line waits for its end. One for each stream. */
import {MAX_LINE} from './writer';

export class LineCutter {
  private open: Buffer = Buffer.alloc(0);

  /** Lines without their newline. The chunk is copied. */
  take(chunk: Buffer): Buffer[] {
    const found: Buffer[] = [];
    let rest: Buffer = Buffer.concat([this.open, chunk]);
    for (;;) {
      const newline = rest.indexOf(0x0a);
      if (newline < 0 && rest.length < MAX_LINE) break;
      const end = newline >= 0 && newline <= MAX_LINE ? newline : MAX_LINE;
      found.push(rest.subarray(0, end));
      rest = rest.subarray(end === newline ? end + 1 : end);
    }
    this.open = rest;
    return found;
  }

  end(): Buffer {
    const last = this.open;
    this.open = Buffer.alloc(0);
    return last;
  }
}
