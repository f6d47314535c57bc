/**
 * `unit` needs nothing but Node; `store` a Postgres that it brings, or ZooKeeper's jars; `integration` and `e2e` need root and the real programs; `chaos` as well, and minutes:
 * `make chaos` runs it.
 */
const STORE = '/test/integration/(moray|moray-.*|jobs-postgres|main-postgres|fleet|zookeeper-harness|manatee-zookeeper|manatee-zookeeper-faults|manatee-discover)\\.test\\.ts$';
const base = {
  testEnvironment: 'node',
  transform: {'^.+\\.ts$': ['@swc/jest', {jsc: {target: 'es2022', parser: {syntax: 'typescript'}}, module: {type: 'commonjs'}, sourceMaps: 'inline'}]},
  extensionsToTreatAsEsm: [],
};
const project = (name, testMatch, more = {}) => ({...base, displayName: name, testMatch, ...more});
module.exports = {
  testTimeout: 180_000,
  projects: [
    project('unit', ['<rootDir>/test/{base,schema,moray,workflow,jobs,placement,fleet,agent,docker,datacenter,admin,ingress,manatee,main,model}/**/*.test.ts']),
    {...base, displayName: 'store', testRegex: [STORE]},
    project('integration', ['<rootDir>/test/integration/**/*.test.ts'], {testPathIgnorePatterns: ['/node_modules/', STORE]}),
    project('e2e', ['<rootDir>/test/e2e/**/*.test.ts']),
    project('chaos', ['<rootDir>/test/chaos/**/*.test.ts']),
  ],
};
