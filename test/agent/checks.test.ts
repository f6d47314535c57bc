/** They are compiled at their first use: here, before it is too late. */
import {checks} from '../../lib/agent/server/body';

test.each(Object.entries(checks))('the schema of %s compiles, and asks for something', (_name, check) => {
  expect(check({})).toBe(false);
  expect(check.errors).toHaveLength(1);
});
