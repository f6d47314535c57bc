import {isLoopback} from '../../lib/base/loopback';

test.each([
  ['127.0.0.1', true], ['127.9.9.9', true], ['::1', true], ['[::1]', true], ['::ffff:127.0.0.1', true], ['::ffff:7f00:1', true], ['localhost', true],
  ['0.0.0.0', false], ['10.0.0.1', false], ['::', false], ['::ffff:10.0.0.1', false], ['', false], ['127.0.0.1.example.com', false], ['localhost.example.com', false],
])('%s: %s', (host, yes) => {
  expect(isLoopback(host)).toBe(yes);
});
