/**
 * The lines of a build. All are passed on as they come, but the ones by which a client knows that its image is there: they wait until it is. What
 * image that is, is read from them. Pure but for the reading.
 */
import type {Readable} from 'node:stream';
import {CetusError} from '../../base/errors';
import type {ProgressMessage} from '../../schema/docker';

const MAX_LINE_BYTES = 16 * 1024 * 1024;
const ID = /^sha256:[0-9a-f]{64}$/;
const BUILDKIT_RESULT = 'moby.image.id';

export type BuildLine = ProgressMessage & {aux?: unknown};

export async function* progressLines(output: Readable): AsyncGenerator<BuildLine> {
  let rest = '';
  const decoder = new TextDecoder();
  for await (const chunk of output as AsyncIterable<Buffer>) {
    const lines = (rest + decoder.decode(chunk, {stream: true})).split('\n');
    rest = lines.pop()!;
    if (rest.length > MAX_LINE_BYTES) throw new CetusError('internal', 'a line of the build\'s output is too long');
    for (const line of lines) if (line.trim() !== '') yield parse(line);
  }
  if (rest.trim() !== '') yield parse(rest);
}

function parse(line: string): BuildLine {
  try {
    return JSON.parse(line) as BuildLine;
  } catch (cause) {
    throw new CetusError('internal', 'a line of the build\'s output is not JSON', {cause});
  }
}

export class ResultHeldBack {
  private held: BuildLine[] = [];
  private result = '';
  private failed = false;

  /** What may be shown now. */
  *pass(line: BuildLine): Generator<BuildLine> {
    if (line.error !== undefined || line.errorDetail !== undefined) this.failed = true;
    const id = imageId(line);
    if (id !== undefined) this.result = id;
    // Each stage of a classic build tells its id; only the last one's is followed by the end. So what is held is shown once anything else comes.
    if (this.held.length > 0 && !isEnd(line)) yield* this.rest();
    if (id !== undefined || isEnd(line)) this.held.push(line);
    else yield line;
  }

  /** After the end. */
  *rest(): Generator<BuildLine> {
    const lines = this.held;
    this.held = [];
    yield* lines;
  }

  /** [] where the build failed or made no image. */
  get imageIds(): string[] {
    return this.failed || this.result === '' ? [] : [this.result];
  }
}

const isEnd = (line: BuildLine): boolean => /^Successfully (built|tagged) /.test(line.stream ?? '');

/** {"aux": {"ID": ...}}, and with q=1 the id as the only line. */
function imageId(line: BuildLine): string | undefined {
  const {aux, id, stream} = line;
  const told = typeof aux === 'object' && aux !== null && (id === undefined || id === BUILDKIT_RESULT) ? (aux as {ID?: unknown}).ID : stream?.trim();
  return typeof told === 'string' && ID.test(told) ? told : undefined;
}
