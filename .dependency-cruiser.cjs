/** The import table of lib/README.md, as rules. Everyone may import base and schema; the rest is listed here. */
const may = {
  base: [], schema: ['base'],
  docker: ['datacenter'], admin: ['datacenter'], ingress: ['datacenter'],
  datacenter: ['moray', 'fleet', 'workflow'],
  placement: [], workflow: ['moray'], jobs: ['workflow', 'placement', 'fleet', 'moray'],
  fleet: ['moray'], agent: [], moray: [], manatee: [],
};
const rules = Object.entries(may).map(([room, allowed]) => ({
  name: `${room}-imports`,
  severity: 'error',
  comment: `lib/${room} may import ${['base', 'schema', ...allowed].join(', ')} (lib/README.md)`,
  from: {path: `^lib/${room}/`},
  to: {path: '^lib/', pathNot: `^lib/(${[...new Set([room, ...(room === 'base' ? [] : ['base']), ...(room === 'base' || room === 'schema' ? [] : ['schema']), ...allowed])].join('|')})/`},
}));
module.exports = {
  forbidden: [
    ...rules,
    {name: 'nobody-imports-main', severity: 'error', from: {pathNot: '^lib/main/'}, to: {path: '^lib/main/'}},
    {name: 'no-cycles', severity: 'error', from: {}, to: {circular: true, viaOnly: {dependencyTypesNot: ['type-only']}}},
    {name: 'no-dev-packages-in-lib', severity: 'error', from: {path: '^lib/'}, to: {dependencyTypes: ['npm-dev'], dependencyTypesNot: ['type-only'], pathNot: 'node_modules/@types/'}},
    {name: 'resolvable', severity: 'error', from: {}, to: {couldNotResolve: true}},
  ],
  options: {
    tsConfig: {fileName: 'tsconfig.json'},
    tsPreCompilationDeps: true,
    doNotFollow: {path: 'node_modules'},
    exclude: {path: '\\.(proto|json)$'},
  },
};
