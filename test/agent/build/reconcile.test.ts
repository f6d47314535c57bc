import {type CetusImages, differences, fresh, type Known} from '../../../lib/agent/build/reconcile';

const images = (names: Record<string, string>, ...more: string[]): CetusImages => ({names: new Map(Object.entries(names)), ids: new Set([...Object.values(names), ...more])});
const known = (names: Record<string, string>, ...more: string[]): Known => ({names, ids: [...new Set([...Object.values(names), ...more])]});
const NONE = {load: [], tag: [], untag: [], remove: []};

it('nothing is to do where both have the same', () => {
  expect(differences(images({a: '1'}), images({a: '1'}), known({a: '1'}), true)).toEqual(NONE);
});

it('what the engine lacks is loaded with its names, or only named', () => {
  expect(differences(images({a: '1'}), images({a: '1', b: '2', c: '2', d: '1'}, '3'), known({a: '1'}), true)).toEqual({
    ...NONE, load: [{imageId: '2', names: ['b', 'c']}, {imageId: '3', names: []}], tag: [{name: 'd', imageId: '1'}],
  });
});

it.each([true, false])('what Cetus has no longer goes, whoever builds (idle: %s)', (idle) => {
  expect(differences(images({a: '1', b: '2'}), images({a: '1'}), known({a: '1', b: '2'}), idle)).toEqual({...NONE, untag: ['b'], remove: ['2']});
});

it('a name that Cetus moved is moved, also under a build', () => {
  expect(differences(images({a: '1'}, '2'), images({a: '2'}), known({a: '1'}, '2'), false)).toEqual({...NONE, tag: [{name: 'a', imageId: '2'}], remove: ['1']});
});

describe('what a build has made and Cetus has not yet heard of', () => {
  const engine = images({a: '9', made: '8'}, '1');

  it('stays while somebody builds', () => {
    expect(differences(engine, images({a: '1'}), known({a: '1'}), false)).toEqual(NONE);
  });
  it('goes from its names where nobody does: that build failed on its way to us', () => {
    expect(differences(engine, images({a: '1'}), known({a: '1'}), true)).toEqual({...NONE, tag: [{name: 'a', imageId: '1'}], untag: ['made']});
  });
  it('is fresh until it is taken', () => {
    expect([...fresh(engine, known({a: '1'}), new Map())]).toEqual([['a', '9'], ['made', '8']]);
    expect([...fresh(engine, known({a: '1'}), new Map([['made', '8']]))]).toEqual([['a', '9']]);
  });
});

it('images between the first and the last of a classic build are the engine\'s own', () => {
  expect(differences(images({}, 'intermediate'), images({}), known({}), true)).toEqual(NONE);
});
