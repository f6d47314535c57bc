/** Datagrams on a stream come out as they went in, however the bytes are cut. */
import {PassThrough} from 'node:stream';
import fc from 'fast-check';
import {MAX_QUEUED_BYTES, readDatagrams, writeDatagram} from '../../lib/base/datagrams';

test('whole, in order, whatever the chunks', () => {
  fc.assert(fc.property(fc.array(fc.uint8Array({maxLength: 40}), {maxLength: 20}), fc.array(fc.integer({min: 1, max: 30}), {minLength: 1, maxLength: 20}), (datagrams, cuts) => {
    const written: Buffer[] = [];
    const out = new PassThrough();
    out.write = ((chunk: Buffer) => { written.push(chunk); return true; }) as never;
    for (const datagram of datagrams) expect(writeDatagram(out, Buffer.from(datagram))).toBe(true);
    const bytes = Buffer.concat(written);
    const into = new PassThrough();
    const read: Buffer[] = [];
    readDatagrams(into, (datagram) => read.push(Buffer.from(datagram)));
    for (let at = 0, n = 0; at < bytes.length; n += 1) {
      const size = cuts[n % cuts.length]!;
      into.emit('data', bytes.subarray(at, at + size));
      at += size;
    }
    expect(read.map((b) => [...b])).toEqual(datagrams.map((d) => [...d]));
  }));
});

test('nothing piles up for a reader who does not read, and nothing too long is cut', () => {
  const stream = new PassThrough();
  expect(writeDatagram(stream, Buffer.alloc(65_536))).toBe(false);
  let sent = 0;
  while (writeDatagram(stream, Buffer.alloc(60_000))) sent += 1;
  expect(stream.writableLength + stream.readableLength).toBeLessThan(MAX_QUEUED_BYTES + 200_000);
  expect(sent).toBeGreaterThan(5);
  stream.destroy();
  expect(writeDatagram(stream, Buffer.alloc(1))).toBe(false);
});
