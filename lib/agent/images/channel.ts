/**
 * Lines from work that runs on its own to one reader. The work never waits for the reader: of several waiting progress lines of one layer
 * only the newest is kept, so that memory is bounded by the number of layers however slowly the client reads.
 */
import type {ProgressMessage} from '../../schema/docker';

export class LineChannel {
  private queue: ProgressMessage[] = [];
  private wake: (() => void) | undefined;
  private ended = false;

  push(line: ProgressMessage): void {
    const last = line.id === undefined ? -1 : this.queue.findLastIndex((l) => l.id === line.id);
    const replaces = last >= 0 && this.queue[last].status === line.status && line.progress !== undefined;
    if (replaces) this.queue[last] = line;
    else this.queue.push(line);
    this.wake?.();
  }

  end(): void {
    this.ended = true;
    this.wake?.();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<ProgressMessage> {
    for (;;) {
      while (this.queue.length > 0) yield this.queue.shift()!;
      if (this.ended) return;
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
      this.wake = undefined;
    }
  }
}

/** Runs `work` beside the reader: yields its lines, then returns its value or throws its error. A reader who leaves aborts the work. */
export async function* withLines<T>(signal: AbortSignal, work: (emit: (line: ProgressMessage) => void, signal: AbortSignal) => Promise<T>): AsyncGenerator<ProgressMessage, T> {
  const channel = new LineChannel();
  const left = new AbortController();
  const outcome = work((line) => channel.push(line), AbortSignal.any([signal, left.signal])).finally(() => channel.end());
  // The error is thrown below, after the lines before it; until then it must not count as unhandled.
  outcome.catch(() => undefined);
  let finished = false;
  try {
    yield* channel;
    finished = true;
  } finally {
    if (!finished) {
      left.abort(new Error('the reader of the progress lines has gone'));
      await outcome.catch(() => undefined);
    }
  }
  return outcome;
}
