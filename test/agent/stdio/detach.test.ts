import fc from 'fast-check';
import {DetachWatcher, parseDetachKeys} from '../../../lib/agent/stdio/detach';

describe('detach keys', () => {
  it('are parsed as the Engine writes them', () => {
    expect(parseDetachKeys('')).toEqual([16, 17]);
    expect(parseDetachKeys('ctrl-a,x,ctrl-[')).toEqual([1, 0x78, 27]);
    expect(() => parseDetachKeys('ctrl-aa')).toThrow('Invalid detach keys (ctrl-aa) provided');
  });

  const feed = (keys: string, chunks: Buffer[]): {passed: Buffer; detached: boolean} => {
    const watcher = new DetachWatcher(parseDetachKeys(keys));
    const out: Buffer[] = [];
    for (const chunk of chunks) {
      const {pass, detached} = watcher.feed(chunk);
      out.push(pass);
      if (detached) return {passed: Buffer.concat(out), detached: true};
    }
    out.push(watcher.end());
    return {passed: Buffer.concat(out), detached: false};
  };

  it('are found on any chunking, and everything else passes', () => {
    const byte = fc.constantFrom(16, 17, 65);
    fc.assert(fc.property(fc.array(byte), fc.array(fc.nat(5)), (bytes, cuts) => {
      const whole = Buffer.from(bytes);
      const chunks: Buffer[] = [];
      let at = 0;
      for (const cut of cuts) {
        chunks.push(whole.subarray(at, at + cut));
        at = Math.min(whole.length, at + cut);
      }
      chunks.push(whole.subarray(at));
      const found = whole.indexOf(Buffer.from([16, 17]));
      const got = feed('', chunks);
      expect(got.detached).toBe(found >= 0);
      expect(got.passed).toEqual(found >= 0 ? whole.subarray(0, found) : whole);
    }));
  });

  it('may be a single key', () => {
    expect(feed('x', [Buffer.from('abxc')])).toEqual({passed: Buffer.from('ab'), detached: true});
  });
});
