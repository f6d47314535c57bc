import {decideRemoval, type ImageFacts} from '../../lib/jobs/image-removal';
import type {ImageRemoveParams} from '../../lib/schema/chains';

const id = `sha256:${'ab'.repeat(32)}`;
const short = 'abababababab';
const BUSYBOX = 'docker.io/library/busybox:latest';
const facts = (part: Partial<ImageFacts> = {}, repoDigests: string[] = []): ImageFacts => ({image: {id, repoDigests}, tags: [BUSYBOX], users: [], hasChildren: false, ...part});
const byName = (reference = BUSYBOX, force = false): ImageRemoveParams => ({account: 'a', imageId: id, reference, shown: 'busybox', force, noPrune: false});
const byId = (force = false): ImageRemoveParams => byName('', force);
const stopped = {id: 'c'.repeat(64), running: false};
const running = {id: 'd'.repeat(64), running: true};

describe('by name', () => {
  it('takes the last name and the image with it, digests included', () => {
    const digest = `busybox@sha256:${'9'.repeat(64)}`;
    expect(decideRemoval(facts({}, [digest]), byName())).toEqual({
      untag: [BUSYBOX], dropDigests: [digest], deleteImage: true, answer: [{Untagged: 'busybox:latest'}, {Untagged: digest}, {Deleted: id}],
    });
  });

  it('only untags where another name is left', () => {
    const other = 'docker.io/me/app:1';
    expect(decideRemoval(facts({tags: [BUSYBOX, other], users: [running]}), byName())).toMatchObject({deleteImage: false, answer: [{Untagged: 'busybox:latest'}]});
  });

  it('refuses the last name of a used image, and forced only untags it', () => {
    expect(() => decideRemoval(facts({users: [stopped]}), byName()))
      .toThrow(`conflict: unable to remove repository reference "busybox" (must force) - container ${'c'.repeat(12)} is using its referenced image ${short}`);
    expect(decideRemoval(facts({users: [running]}), byName(BUSYBOX, true))).toMatchObject({deleteImage: false, answer: [{Untagged: 'busybox:latest'}]});
    expect(decideRemoval(facts({users: [stopped]}), byName(BUSYBOX, true))).toMatchObject({deleteImage: true});
  });
});

describe('by id', () => {
  it('takes all names of one repository', () => {
    expect(decideRemoval(facts(), byId())).toMatchObject({deleteImage: true, answer: [{Untagged: 'busybox:latest'}, {Deleted: id}]});
  });

  it('wants force for several repositories', () => {
    const two = facts({tags: [BUSYBOX, 'docker.io/me/app:1']});
    expect(() => decideRemoval(two, byId())).toThrow(`conflict: unable to delete ${short} (must be forced) - image is referenced in multiple repositories`);
    expect(decideRemoval(two, byId(true)).answer).toEqual([{Untagged: 'busybox:latest'}, {Untagged: 'me/app:1'}, {Deleted: id}]);
  });

  it('never takes an image from a running container or from its children', () => {
    expect(() => decideRemoval(facts({users: [running]}), byId(true))).toThrow(`(cannot be forced) - image is being used by running container ${'d'.repeat(12)}`);
    expect(() => decideRemoval(facts({hasChildren: true}), byId(true))).toThrow('(cannot be forced) - image has dependent child images');
    expect(() => decideRemoval(facts({users: [stopped]}), byId())).toThrow(`(must be forced) - image is being used by stopped container ${'c'.repeat(12)}`);
    expect(decideRemoval(facts({users: [stopped]}), byId(true)).deleteImage).toBe(true);
  });

  it('takes all names of what nobody uses where it is pruned, and never what a container uses', () => {
    const prune = {...byId(), unused: true};
    const many = {tags: [BUSYBOX, 'docker.io/me/app:1']};
    expect(decideRemoval(facts(many, [`other/app@sha256:${'9'.repeat(64)}`]), prune).answer)
      .toEqual([{Untagged: 'busybox:latest'}, {Untagged: 'me/app:1'}, {Untagged: `other/app@sha256:${'9'.repeat(64)}`}, {Deleted: id}]);
    expect(() => decideRemoval(facts({...many, users: [stopped]}), prune)).toThrow(`image is being used by stopped container ${'c'.repeat(12)}`);
    expect(() => decideRemoval(facts({...many, hasChildren: true}), prune)).toThrow('image has dependent child images');
  });

  it('deletes what has no name', () => {
    expect(decideRemoval(facts({tags: []}), byId())).toMatchObject({deleteImage: true, answer: [{Deleted: id}]});
  });
});
