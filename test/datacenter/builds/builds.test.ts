import {Readable} from 'node:stream';
import {checkBuild} from '../../../lib/datacenter/builds/options';
import {type BuildLine, progressLines, ResultHeldBack} from '../../../lib/datacenter/builds/progress';
import type {DatacenterConfig} from '../../../lib/datacenter/context';

const ID = `sha256:${'a'.repeat(64)}`;
const OTHER = `sha256:${'b'.repeat(64)}`;

/** What a client sees before and after its image is there. */
function play(lines: BuildLine[]): {before: BuildLine[]; after: BuildLine[]; ids: string[]} {
  const result = new ResultHeldBack();
  const before = lines.flatMap((line) => [...result.pass(line)]);
  return {before, ids: result.imageIds, after: [...result.rest()]};
}

describe('the lines of a build', () => {
  it('of the classic one are shown as they come, but its end', () => {
    const step = {stream: ' ---> 1234\n'};
    const end = [{aux: {ID}}, {stream: 'Successfully built aaaaaaaaaaaa\n'}, {stream: 'Successfully tagged x:1\n'}];
    // A stage before the last tells its id as well.
    expect(play([step, {aux: {ID: OTHER}}, step, ...end])).toEqual({before: [step, {aux: {ID: OTHER}}, step], after: end, ids: [ID]});
  });

  it('of a quiet one are the id', () => {
    expect(play([{stream: `${ID}\n`}])).toEqual({before: [], after: [{stream: `${ID}\n`}], ids: [ID]});
  });

  it('of BuildKit are traces and the id', () => {
    const trace = {id: 'moby.buildkit.trace', aux: 'Cg=='};
    expect(play([trace, {id: 'moby.image.id', aux: {ID}}])).toEqual({before: [trace], after: [{id: 'moby.image.id', aux: {ID}}], ids: [ID]});
  });

  it('with an error among them make no image', () => {
    const failed = {error: 'no', errorDetail: {message: 'no'}};
    expect(play([{aux: {ID}}, failed])).toEqual({before: [{aux: {ID}}, failed], after: [], ids: []});
  });

  it('are found however they are cut', async () => {
    const text = Buffer.from('{"stream":"ä"}\r\n\r\n{"stream":"b"}');
    const cut = Readable.from(Array.from(text, (byte) => Buffer.from([byte])));
    const lines: BuildLine[] = [];
    for await (const line of progressLines(cut)) lines.push(line);
    expect(lines).toEqual([{stream: 'ä'}, {stream: 'b'}]);
  });
});

describe('what of a build is refused', () => {
  const config = {allowHostNetwork: false, allowPrivileged: false} as DatacenterConfig;
  const all = {allowHostNetwork: true, allowPrivileged: true} as DatacenterConfig;
  it.each([
    ['networkmode=container:web', 'container:web'], ['networkmode=mine', '"mine"'], ['cgroupparent=/x', 'cgroupparent'], ['isolation=hyperv', 'hyperv'], ['squash=1', 'squash'],
    ['t=ok&t=UPPER', 'repository name must be lowercase'], [`t=a@${ID}`, 'digest'],
  ])('%s, by name and always', (query, named) => {
    expect(() => checkBuild(all, new URLSearchParams(query))).toThrow(named);
  });
  it.each([['networkmode=host', 'networkmode'], ['securityopt=["seccomp=unconfined"]', 'securityopt'], ['securityopt=apparmor:unconfined', 'securityopt']])('%s, where the configuration does not allow it', (query, named) => {
    expect(() => checkBuild(config, new URLSearchParams(query))).toThrow(named);
    expect(() => checkBuild(all, new URLSearchParams(query))).not.toThrow();
  });
  it('nothing of what is usual', () => {
    expect(() => checkBuild(config, new URLSearchParams('t=a&networkmode=default&cgroupparent=&isolation=&squash=0&securityopt=["no-new-privileges"]&rm=1'))).not.toThrow();
  });
});
