import {CetusError} from '../../lib/base/errors';
import {createFakeRuntime} from '../../lib/agent/runtime/fake';
import {classifyStartError} from '../../lib/agent/runtime/start-error';
import {runtimeConformance} from './runtime-conformance';

describe('the fake runtime', () => {
  runtimeConformance(async () => ({
    runtime: createFakeRuntime({parents: new Set(['busybox'])}),
    parentSnapshot: 'busybox',
    spec: (_id, args, terminal = false) => ({process: {args, terminal}}),
    stop: async () => undefined,
  }));

  test('fails once where a test asks for it', async () => {
    const runtime = createFakeRuntime();
    runtime.failNext('create', new CetusError('unavailable', 'gone'));
    await expect(runtime.create({id: 'a', parentSnapshot: '', labels: {}})).rejects.toMatchObject({kind: 'unavailable'});
    await runtime.create({id: 'a', parentSnapshot: '', labels: {}});
  });
});

describe('start errors', () => {
  const classify = (text: string) => classifyStartError(new CetusError('internal', text)).exitCode;
  test.each([
    ['exec: "nosuch": executable file not found in $PATH: unknown', 127],
    ['exec: "/nosuch": stat /nosuch: no such file or directory: unknown', 127],
    ['exec: "/etc/passwd": permission denied: unknown', 126],
    ['exec: "/etc": is a directory: unknown', 126],
    ['exec /x: exec format error', 126],
    ['cgroups: something else', 128],
  ])('%s -> %d', (text, code) => expect(classify(text)).toBe(code));

  test('a bind of the wrong kind gets the Engine\'s hint', () => {
    const {exitCode, message} = classifyStartError(new Error('failed to create shim task: mounting "/a" to rootfs at "/b": not a directory: unknown'));
    expect(exitCode).toBe(127);
    expect(message).toMatch(/^failed to create task for container: .*expected type$/);
  });
});
