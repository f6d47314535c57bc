/** Lines of JSON from a byte stream, one at a time: the reader's pace is the sender's. A line has a limit; a torn last line is an error. */
import {CetusError} from '../base/errors';

const MAX_LINE_BYTES = 8 * 1024 * 1024;

export async function* lines<T>(body: AsyncIterable<Buffer>, maxLineBytes = MAX_LINE_BYTES): AsyncGenerator<T> {
  let rest: Buffer[] = [];
  let restBytes = 0;
  for await (const chunk of body) {
    let from = 0;
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, from)) {
      const line = Buffer.concat([...rest, chunk.subarray(from, end)]);
      rest = [];
      restBytes = 0;
      from = end + 1;
      if (line.length) yield parse<T>(line);
    }
    if (from < chunk.length) {
      rest.push(chunk.subarray(from));
      restBytes += chunk.length - from;
      if (restBytes > maxLineBytes) throw new CetusError('internal', `a line of the answer is longer than ${maxLineBytes} bytes`);
    }
  }
  if (restBytes) yield parse<T>(Buffer.concat(rest));
}

function parse<T>(line: Buffer): T {
  try {
    return JSON.parse(line.toString('utf8')) as T;
  } catch (err) {
    throw new CetusError('internal', 'a line of the answer is not JSON', {cause: err});
  }
}
