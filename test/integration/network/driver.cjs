/**
 * Runs the node's networking inside a network namespace that stands for the host (started by nsenter), and takes calls by line on stdin:
 * {id, method, args} -> {id, result} | {id, error}. TypeScript is compiled on the way in, as jest does it.
 */
const childProcess = require('node:child_process');
const {readFileSync} = require('node:fs');
const {createInterface} = require('node:readline');
const {transformSync} = require('@swc/core');

require.extensions['.ts'] = (module, file) => {
  const {code} = transformSync(readFileSync(file, 'utf8'), {filename: file, jsc: {target: 'es2022', parser: {syntax: 'typescript'}}, module: {type: 'commonjs'}, sourceMaps: 'inline'});
  module._compile(code, file);
};
// Before anything of ours has taken the function.
let toolsStarted = 0;
const {spawn} = childProcess;
childProcess.spawn = (...args) => {
  toolsStarted += 1;
  return spawn(...args);
};
const {createLinuxNetworking} = require('../../../lib/agent/network/linux.ts');
const {purgeLinuxNetworking} = require('../../../lib/agent/network/purge.ts');
const {createLog} = require('../../../lib/base/log.ts');

const options = JSON.parse(process.argv[2]);
const log = createLog({name: 'driver', level: options.logLevel || 'fatal'});
const networking = createLinuxNetworking({...options, log});
networking.toolsStarted = async () => toolsStarted;
networking.purge = () => purgeLinuxNetworking({...options, log});

createInterface({input: process.stdin}).on('line', async line => {
  const {id, method, args} = JSON.parse(line);
  try {
    const started = performance.now();
    const result = await networking[method](...args);
    process.stdout.write(`${JSON.stringify({id, result: result ?? null, ms: performance.now() - started})}\n`);
  } catch (err) {
    process.stdout.write(`${JSON.stringify({id, error: {kind: err.kind, message: err.message, stack: err.stack}})}\n`);
  }
}).on('close', () => process.exit(0));
process.stdout.write('{"ready":true}\n');
