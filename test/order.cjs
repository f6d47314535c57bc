/**
 * Which files begin first, where several run at a time. By its own means jest takes the largest, or what took longest here the last time; on a new machine a
 * short file that waits two minutes would come last, and everybody would wait with it.
 */
const Sequencer = require('@jest/test-sequencer').default;

/** Those that wait for long bounds of the product; then those with most to do. The others follow. */
const FIRST = [
  'backpressure', 'bad-registries', 'fleet', 'options', 'bad-clients', 'differential', 'survival', 'compose', 'fleet-hosts', 'cluster', 'fleet-images', 'network',
  'comeback', 'failover', 'never-reading', 'volumes', 'testcontainers', 'behaviour', 'run', 'files', 'cli', 'build',
].map((name) => `/test/e2e/${name}.test.ts`);

const place = ({path}) => {
  const at = FIRST.findIndex((name) => path.endsWith(name));
  return at < 0 ? FIRST.length : at;
};

module.exports = class extends Sequencer {
  sort(tests) {
    return [...super.sort(tests)].sort((a, b) => place(a) - place(b));
  }
};
