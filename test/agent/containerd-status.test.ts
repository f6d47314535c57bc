import {status as Code} from '@grpc/grpc-js';
import {startFailure} from '../../lib/agent/container/start-failure';
import {fromStatus} from '../../lib/agent/containerd/status';

test.each([
  [Code.DEADLINE_EXCEEDED, 'Deadline exceeded', 'timeout'],
  // containerd answers so where its own clock was faster than ours.
  [Code.UNKNOWN, 'context deadline exceeded', 'timeout'],
  [Code.UNKNOWN, 'context canceled', 'canceled'],
  [Code.UNKNOWN, 'subscription error: context deadline exceeded', 'timeout'],
  [Code.UNKNOWN, 'context deadline exceeded: unknown', 'timeout'],
  [Code.UNKNOWN, 'exit status 1', 'internal'],
  [Code.NOT_FOUND, 'container x: not found', 'notFound'],
])('status %i "%s" is %s, in its own words', (code, details, kind) => {
  expect(fromStatus({code, details}, 'tasks.get')).toMatchObject({kind, message: details, info: {status: Code[code], method: 'tasks.get'}});
});

test.each([
  [Code.DEADLINE_EXCEEDED, 'Deadline exceeded after 10.001s,remote_addr=unix:/run/x/containerd.sock', /^the container runtime of the node did not answer in time$/],
  [Code.UNKNOWN, 'failed to create shim task: context deadline exceeded: unknown', /^the container runtime of the node did not answer in time$/],
  [Code.UNAVAILABLE, 'No connection established. Last error: connect ENOENT /run/x/containerd.sock', /^the container runtime of the node cannot be reached now; try again$/],
  [Code.CANCELLED, 'Cancelled on client', /^the container runtime of the node broke off$/],
  // The Engine shows these as they are.
  [Code.UNKNOWN, 'failed to create shim task: OCI runtime create failed: runc create failed: x: unknown', /^failed to create shim task: OCI runtime create failed: runc create failed: x: unknown$/],
])('of status %i "%s" clients are shown what they can make something of', (code, details, shown) => {
  const error = fromStatus({code, details}, 'tasks.create');
  expect(error.shown).toMatch(shown);
  expect(error.message).toBe(details);
});

test('a start of which the runtime was not heard shows that, in inspect and to the caller', () => {
  const {error, exitCode} = startFailure(fromStatus({code: Code.UNKNOWN, details: 'failed to create shim task: context deadline exceeded: unknown'}, 'tasks.create'));
  expect([error.kind, error.shown, exitCode]).toEqual(['timeout', 'the container runtime of the node did not answer in time', 128]);
});
