import fc from 'fast-check';
import {type Framing, Unframer, framingOf, isFraming} from '../../lib/base/framing';

const CHUNKED: Framing = {kind: 'chunked', at: 'size', left: 0, line: ''};

/** Reads in the given pieces, each by an unframer that knows only what the one before it says: so one process goes on where another stopped. */
function read(framing: Framing, wire: Buffer, cuts: number[]): {content: Buffer; rest: Buffer; done: boolean} {
  const content: Buffer[] = [];
  let state = framing;
  const ends = [...new Set(cuts.map((cut) => cut % (wire.length + 1)).sort((a, b) => a - b)), wire.length];
  for (let at = 0, n = 0; n < ends.length; n += 1) {
    const unframer = new Unframer(JSON.parse(JSON.stringify(state)) as Framing);
    // Somewhere in the middle of what others write to.
    const piece = Buffer.concat([Buffer.from('before'), wire.subarray(at, ends[n]), Buffer.from('behind')]);
    const stop = piece.length - 6;
    content.push(Buffer.from(piece.subarray(6, unframer.take(piece, 6, stop))));
    expect([piece.toString('latin1', 0, 6), piece.toString('latin1', stop)]).toEqual(['before', 'behind']);
    if (unframer.done) return {content: Buffer.concat(content), rest: wire.subarray(at + unframer.spent - 6), done: true};
    [at, state] = [ends[n]!, unframer.state];
    expect(isFraming(state)).toBe(true);
  }
  return {content: Buffer.concat(content), rest: Buffer.alloc(0), done: false};
}

const bytes = fc.uint8Array({maxLength: 300}).map((array) => Buffer.from(array));
const cuts = fc.array(fc.nat(5_000), {maxLength: 20});

describe('a body on its connection', () => {
  test('in chunks, cut anywhere: its content, and what lies behind it', () => {
    fc.assert(fc.property(fc.array(bytes), bytes, cuts, fc.boolean(), (chunks, rest, at, trailer) => {
      const full = chunks.filter((chunk) => chunk.length);
      const wire = Buffer.concat([...full.flatMap((chunk) => [Buffer.from(`${chunk.length.toString(16)}${trailer ? ';a=b' : ''}\r\n`), chunk, Buffer.from('\r\n')]), Buffer.from(trailer ? '0\r\nA: b\r\n\r\n' : '0\r\n\r\n')]);
      const got = read(CHUNKED, Buffer.concat([wire, rest]), at);
      expect(got.done).toBe(true);
      expect(got.content.equals(Buffer.concat(full))).toBe(true);
      expect(got.rest.equals(rest.subarray(0, got.rest.length))).toBe(true);
      // Cut short anywhere it is never taken for whole.
      expect(read(CHUNKED, wire.subarray(0, wire.length - 1), at).done).toBe(false);
    }));
  });

  test('of announced length, cut anywhere', () => {
    fc.assert(fc.property(bytes.filter((body) => body.length > 0), bytes, cuts, (body, rest, at) => {
      const got = read({kind: 'sized', left: body.length}, Buffer.concat([body, rest]), at);
      expect([got.done, got.content.equals(body)]).toEqual([true, true]);
      expect(read({kind: 'sized', left: body.length + 1}, body, at).done).toBe(false);
    }));
  });

  test.each(['x\r\n', '-1\r\n', '\r\n', '5 6\r\n', '1\r\nab\r\n', `${'0'.repeat(13)}\r\n`, 'a'.repeat(5_000), `0\r\n${'a: b\r\n'.repeat(1_000)}`])('%j is no chunk', (wire) => {
    const buffer = Buffer.from(wire);
    expect(() => new Unframer({...CHUNKED}).take(buffer, 0, buffer.length)).toThrow('malformed chunked body');
  });

  test('what headers say', () => {
    expect(framingOf({'transfer-encoding': 'Chunked', 'content-length': '5'})).toEqual(CHUNKED);
    expect(framingOf({'content-length': '5'})).toEqual({kind: 'sized', left: 5});
    expect([framingOf({}), framingOf({'content-length': '0'})]).toEqual([undefined, undefined]);
    for (const given of [null, 5, {}, {kind: 'sized'}, {kind: 'sized', left: -1}, {kind: 'chunked', left: 0, at: 'nowhere', line: ''}, {kind: 'chunked', left: 0, at: 'size'}]) expect(isFraming(given)).toBe(false);
  });
});
