/** Lets require() read the project's TypeScript, for tools that run it without a build: swc takes the types away, nothing is checked. */
const {transformSync} = require('@swc/core');
const {readFileSync} = require('node:fs');

require.extensions['.ts'] = (module, filename) => {
  const {code} = transformSync(readFileSync(filename, 'utf8'), {filename, jsc: {target: 'es2022', parser: {syntax: 'typescript'}}, module: {type: 'commonjs'}, sourceMaps: 'inline'});
  module._compile(code, filename);
};
