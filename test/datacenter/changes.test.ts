/** `--change`: what each instruction makes of a config, the Engine's words for what is none, and any text at all. */
import fc from 'fast-check';
import {applyChanges} from '../../lib/datacenter/images/changes/changes';
import {inherit, newReference} from '../../lib/datacenter/images/commit';
import {isCetusError} from '../../lib/base/errors';
import type {Config} from '../../lib/schema/docker';

const BASE: Config = {Env: ['PATH=/bin', 'A=old'], Cmd: ['run'], Labels: {was: 'here'}, WorkingDir: '/srv'};

describe('instructions', () => {
  it.each<[string, Partial<Config>]>([
    ['CMD ["a","b c"]', {Cmd: ['a', 'b c']}],
    ['CMD a  "b c"', {Cmd: ['/bin/sh', '-c', 'a  "b c"']}],
    ['cmd', {Cmd: ['/bin/sh', '-c']}],
    ['ENTRYPOINT ["e"]', {Entrypoint: ['e'], Cmd: null}],
    ['CMD x\nENTRYPOINT ["e"]', {Entrypoint: ['e'], Cmd: ['/bin/sh', '-c', 'x']}],
    ['ENV A=1 B="two $A \'q\'" C=\'$A\' D=a\\ b', {Env: ['PATH=/bin', 'A=1', 'B=two old \'q\'', 'C=$A', 'D=a b']}],
    ['ENV A  all the "rest"', {Env: ['PATH=/bin', 'A=all the rest']}],
    ['ENV N=${NO:-d} E=${A:+set} P=${A-x} Q=${NO+x}', {Env: ['PATH=/bin', 'A=old', 'N=d', 'E=set', 'P=old', 'Q=']}],
    ['EXPOSE 80 53/UDP 1.2.3.4:8080:90-91', {ExposedPorts: {'80/tcp': {}, '53/udp': {}, '90/tcp': {}, '91/tcp': {}}}],
    ['LABEL a=1 "b c"="d e"', {Labels: {was: 'here', a: '1', 'b c': 'd e'}}],
    ['ONBUILD copy  a b', {OnBuild: ['copy  a b']}],
    ['STOPSIGNAL SIGINT', {StopSignal: 'SIGINT'}],
    ['USER $A:users', {User: 'old:users'}],
    ['VOLUME /a /b', {Volumes: {'/a': {}, '/b': {}}}],
    ['VOLUME ["/a b"]', {Volumes: {'/a b': {}}}],
    ['WORKDIR x/../y', {WorkingDir: '/srv/y'}],
    ['WORKDIR /x', {WorkingDir: '/x'}],
    ['HEALTHCHECK NONE', {Healthcheck: {Test: ['NONE']}}],
    ['HEALTHCHECK --interval=1m30s --retries=3 CMD ["t"]', {Healthcheck: {Test: ['CMD', 't'], Interval: 90e9, Retries: 3}}],
    ['# a comment\n\nUSER \\\n  x', {User: 'x'}],
  ])('%s', (text, expected) => {
    const before = structuredClone(BASE);
    expect(applyChanges(BASE, [text])).toEqual({...BASE, ...expected});
    expect(BASE).toEqual(before);
  });

  it.each([
    ['RUN x', 'run is not a valid change command'],
    ['', 'file with no instructions'],
    ['ENV', 'ENV requires at least one argument'],
    ['ENV x', 'ENV must have two arguments'],
    ['ENV a=b c', 'Syntax error - can\'t find = in "c". Must be of the form: name=value'],
    ['ENV =x', 'ENV names can not be blank'],
    ['LABEL', 'LABEL requires at least one argument'],
    ['EXPOSE abc', 'invalid containerPort: abc'],
    ['EXPOSE 80/foo', 'invalid proto: foo'],
    ['EXPOSE 9-3', 'invalid containerPort: 9-3'],
    ['CMD [1]', 'when using JSON array syntax, arrays must be comprised of strings only'],
    ['VOLUME [""]', 'VOLUME specified can not be an empty string'],
    ['STOPSIGNAL FOO', 'invalid signal: FOO'],
    ['ONBUILD ONBUILD x', 'Chaining ONBUILD via `ONBUILD ONBUILD` isn\'t allowed'],
    ['ONBUILD FROM x', 'FROM isn\'t allowed as an ONBUILD trigger'],
    ['USER', 'USER requires exactly one argument'],
    ['USER --x y', 'unknown flag: --x'],
    ['HEALTHCHECK FOO x', 'Unknown type "FOO" in HEALTHCHECK (try CMD)'],
    ['HEALTHCHECK CMD', 'Missing command after HEALTHCHECK CMD'],
    ['HEALTHCHECK --interval=5 CMD x', 'time: missing unit in duration "5"'],
    ['ENV a=${b:?}', 'failed to process "${b:?}": b: is not allowed to be unset or empty'],
  ])('%j is refused: %s', (text, message) => {
    expect(() => applyChanges(BASE, [text])).toThrow(expect.objectContaining({kind: 'invalid', message}));
  });

  it('takes any text, or refuses it as invalid', () => {
    const word = fc.oneof(fc.string(), fc.constantFrom('$A', '${A:-', '}', '"', '\'', '\\', '[', '["a"', ']', '=', 'a=b', '80-81/tcp', '--x=1', '\n', '#'));
    const line = fc.tuple(fc.constantFrom('CMD', 'ENTRYPOINT', 'ENV', 'EXPOSE', 'HEALTHCHECK CMD', 'LABEL', 'ONBUILD', 'STOPSIGNAL', 'USER', 'VOLUME', 'WORKDIR', 'RUN', ''), fc.array(word)).map(([name, rest]) => `${name} ${rest.join(' ')}`);
    fc.assert(fc.property(fc.array(line, {maxLength: 5}), (lines) => {
      try {
        const config = applyChanges(BASE, lines);
        expect((config.Env ?? []).every((entry) => entry.includes('='))).toBe(true);
        expect(Object.keys(config.ExposedPorts ?? {}).every((port) => /^\d+\/(tcp|udp|sctp)$/.test(port))).toBe(true);
        expect(config.WorkingDir).toMatch(/^\//);
      } catch (err) {
        if (!isCetusError(err, 'invalid')) throw err;
      }
    }), {numRuns: 500});
  });

  it('values that are quoted come out as they went in', () => {
    const plain = fc.string().filter((s) => !/[\n\r'\0]/.test(s));
    fc.assert(fc.property(fc.dictionary(fc.stringMatching(/^[a-z]{1,8}$/), plain, {minKeys: 1, maxKeys: 5}), (labels) => {
      const line = `LABEL ${Object.entries(labels).map(([k, v]) => `${k}='${v}'`).join(' ')}`;
      expect(applyChanges({}, [line]).Labels).toEqual(labels);
    }));
  });
});

describe('what a commit inherits', () => {
  it('fills in what the given config leaves open', () => {
    const own: Config = {User: 'u', Env: ['A=1', 'B=2'], Cmd: ['c'], Entrypoint: ['e'], ExposedPorts: {'1/tcp': {}}, Labels: {l: '1'}, Healthcheck: {Test: ['NONE'], Retries: 2}};
    expect(inherit({Env: ['B=3'], Healthcheck: {Retries: 5}}, own)).toMatchObject({User: 'u', Env: ['B=3', 'A=1'], Cmd: ['c'], Entrypoint: ['e'], ExposedPorts: {'1/tcp': {}}, Labels: {l: '1'}, Healthcheck: {Test: ['NONE'], Retries: 5}});
    expect(inherit({Cmd: ['x']}, own)).toMatchObject({Cmd: ['x'], Entrypoint: ['e']});
    expect(inherit({Entrypoint: ['x']}, own).Cmd).toBeUndefined();
  });

  it('names', () => {
    expect(newReference('', 'x')).toBe('');
    expect(newReference('a', '')).toBe('docker.io/library/a:latest');
    expect(newReference('a:1', '2')).toBe('docker.io/library/a:2');
    expect(() => newReference(`a@sha256:${'0'.repeat(64)}`, '')).toThrow('cannot import digest reference');
    expect(() => newReference('a', ':')).toThrow('invalid tag format');
  });
});
