/** What a newer version, or anybody else, may have written into the nodes. */
import {decodeEntry, decodePeer, decodeState, encode, illegible} from '../../lib/manatee/zookeeper/stored';
import {documentOf, live, three} from './cluster';

const refusal = (read: () => unknown): string => {
  try {
    read();
  } catch (err) {
    return (err as Error).message;
  }
  throw new Error('it was read');
};

test('what a newer version adds is read over, and kept by whoever writes the state anew', () => {
  const state = three();
  const newer = {...state, witness: 'w', primary: {...state.primary, rack: 'r1'}};
  expect(decodeState('/s', Buffer.from(JSON.stringify(newer)))).toEqual(newer);
  const {order: _order, mine: _mine, ...said} = live('a');
  expect(decodePeer('/peers/a', Buffer.from(JSON.stringify({...said, version: 9})))).toMatchObject(said);
  expect(decodeEntry('/h', Buffer.from(JSON.stringify({at: 't', by: 'a', reason: 'r', state: newer, more: 1})))).toMatchObject({state: newer});
});

test('garbage is refused by name', () => {
  expect(refusal(() => decodeState('/s', Buffer.from('garbage')))).toMatch(/\/s .*no JSON/);
  expect(refusal(() => decodeState('/s', Buffer.from('{}')))).toMatch(/\/s .*generation/);
  expect(refusal(() => decodeState('/s', encode({...three(), initWal: '7'})))).toMatch(/initWal/);
  expect(refusal(() => decodePeer('/peers/b', encode(documentOf(three(), 'a').peer as never)))).toMatch(/\/peers\/b/);
});

test('an illegible peer is nobody that could be given a place, and somebody that may have data', () => {
  expect(illegible('b')).toMatchObject({id: 'b', ready: false});
  expect(illegible('b').systemId).not.toBeNull();
});
