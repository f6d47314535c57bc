import {status as Code} from '@grpc/grpc-js';
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
