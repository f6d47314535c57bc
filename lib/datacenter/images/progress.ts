/**
 * Between a chain that reports progress when it likes and a client that reads when it likes: a bounded line. Where the reader is slow, older
 * progress of the same layer gives way to newer (a progress bar loses nothing); other lines are kept.
 */
import type {ProgressMessage} from '../../schema/docker';

const MAX_LINES = 1000;

export async function* followProgress<R>(begin: (onProgress: (message: unknown) => void) => Promise<R>): AsyncGenerator<ProgressMessage, R> {
  let lines: ProgressMessage[] = [];
  let wake: (() => void) | undefined;
  let ended: {result: R} | {error: unknown} | undefined;
  const signal = (): void => {
    wake?.();
    wake = undefined;
  };
  begin((message) => {
    const line = message as ProgressMessage;
    if (line.progressDetail && line.id !== undefined && lines.length > 0) {
      const older = lines.findIndex((l) => l.id === line.id && l.status === line.status && l.progressDetail);
      if (older >= 0) lines.splice(older, 1);
    }
    if (lines.length < MAX_LINES) lines.push(line);
    signal();
  }).then((result) => { ended = {result}; signal(); }, (error: unknown) => { ended = {error}; signal(); });
  for (;;) {
    const ready = lines;
    lines = [];
    yield* ready;
    if (lines.length > 0) continue;
    if (ended) {
      if ('error' in ended) throw ended.error;
      return ended.result;
    }
    await new Promise<void>((resolve) => { wake = resolve; });
  }
}
