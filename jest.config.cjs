/**
 * `unit` needs nothing but Node; `store` a Postgres that it brings; `cluster` ZooKeeper and the distribution's Postgres; `integration` and `e2e` need root and the
 * real programs; `chaos` as well, and minutes: `make chaos` runs it.
 */
const CLUSTER = '/test/integration/(zookeeper-harness|manatee-(zookeeper|discover|postgres).*|manatee-chaos|moray-failover|moray-copy)\\.test\\.ts$';
const STORE = '/test/integration/(moray|moray-(agreement|feed|reindex|restart)|jobs-postgres|main-postgres|fleet|authority|sim-fleet)\\.test\\.ts$';
/** What takes its minutes, most of them of processor: with `make test-long`, or by its name. Every room keeps one of each kind in `make test`. */
const named = (world, names) => (process.env.CETUS_SHORT === '1' ? [`/test/${world}/(${names.join('|')})\\.test\\.ts$`] : []);
const LONG_OF_CLUSTER = named('integration', ['manatee-postgres-chain']);
const LONG_OF_INTEGRATION = named('integration', ['images', 'images-peers', 'network-nodes']);
const LONG_OF_E2E = named('e2e', [
  'backpressure', 'bad-clients', 'bad-registries', 'behaviour', 'cluster', 'comeback', 'compose', 'differential', 'dockerode', 'drift', 'fleet-build', 'fleet-hosts', 'fleet-images',
  'fleet-ingress', 'fleet-loss', 'fleet-network', 'made-images', 'network', 'never-reading', 'options', 'restarted-agent', 'shared-containerd',
]);
const base = {
  testEnvironment: 'node',
  transform: {'^.+\\.ts$': ['@swc/jest', {jsc: {target: 'es2022', parser: {syntax: 'typescript'}}, module: {type: 'commonjs'}, sourceMaps: 'inline'}]},
  extensionsToTreatAsEsm: [],
};
const project = (name, testMatch, more = {}) => ({...base, displayName: name, testMatch, ...more});
module.exports = {
  testTimeout: 180_000,
  testSequencer: '<rootDir>/test/order.cjs',
  projects: [
    project('unit', ['<rootDir>/test/{base,schema,moray,workflow,jobs,placement,fleet,agent,docker,datacenter,admin,ingress,manatee,main,model}/**/*.test.ts']),
    {...base, displayName: 'store', testRegex: [STORE]},
    {...base, displayName: 'cluster', testRegex: [CLUSTER], testPathIgnorePatterns: ['/node_modules/', ...LONG_OF_CLUSTER]},
    project('integration', ['<rootDir>/test/integration/**/*.test.ts'], {testPathIgnorePatterns: ['/node_modules/', STORE, CLUSTER, ...LONG_OF_INTEGRATION]}),
    project('e2e', ['<rootDir>/test/e2e/**/*.test.ts'], {testPathIgnorePatterns: ['/node_modules/', ...LONG_OF_E2E]}),
    project('chaos', ['<rootDir>/test/chaos/**/*.test.ts']),
  ],
};
