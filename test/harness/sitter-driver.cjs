/**
 * A process that owns a PostgresServer as a sitter does, so that a test can stop and kill it: makes the server of the options (argv[2], JSON), starts it as
 * primary, opens its gate, says "up", and takes a number of ms a line: permitUntil(now + that). No other orders: what is tried is its end.
 */
const {readFileSync} = require('node:fs');
const {createInterface} = require('node:readline');
const {transformSync} = require('@swc/core');

require.extensions['.ts'] = (module, file) => {
  const {code} = transformSync(readFileSync(file, 'utf8'), {filename: file, jsc: {target: 'es2022', parser: {syntax: 'typescript'}}, module: {type: 'commonjs'}, sourceMaps: 'inline'});
  module._compile(code, file);
};
const {silentLog} = require('../../lib/base/log.ts');
const {monotonic} = require('../../lib/manatee/monotonic.ts');
const {createPostgresServer} = require('../../lib/manatee/postgres/server.ts');

async function main() {
  const server = await createPostgresServer({...JSON.parse(process.argv[2]), clock: monotonic, log: silentLog()});
  await server.start('primary', null);
  await server.acknowledge({kind: 'alone'});
  await server.openGate(1);
  createInterface({input: process.stdin}).on('line', (line) => {
    server.permitUntil(monotonic.nowMs() + Number(line));
    console.log('permitted');
  });
  console.log('up');
}
main().catch((err) => {
  console.error(err);
  process.exit(1);
});
