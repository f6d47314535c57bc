// Key `compose`: docker-compose with the shop of the tests (nginx, an application, PostgreSQL that makes its database, Redis): until all is healthy, and away again.
import {execFile, execFileSync} from 'node:child_process';
import path from 'node:path';
import {promisify} from 'node:util';
import {timed} from '../measure.mjs';

const tools = path.resolve(import.meta.dirname, '../..');
const FILE = path.join(tools, '../test/harness/shop/docker-compose.yml');
const run = promisify(execFile);

export default async function compose({row, isWanted, docker, engines}) {
  if (!isWanted('compose')) return;
  const archive = execFileSync(path.join(tools, 'service-images/make.sh'), {encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit']}).trim();
  const call = (engine, ...args) => run('docker-compose', ['-p', 'bench', '-f', FILE, ...args], {timeout: 300_000, env: {...process.env, DOCKER_HOST: engine.host, COMPOSE_INTERACTIVE_NO_CLI: '1'}});
  for (const engine of engines) await docker(engine, ['load', '-q', '-i', archive]);
  const downs = {cetus: [], dockerd: []};
  await row('compose', 'docker-compose up -d, four services', 3, 1, async (engine) => {
    const up = await timed(() => call(engine, 'up', '-d'));
    downs[engine.name].push(await timed(() => call(engine, 'down', '-v', '-t', '1')));
    return up;
  });
  // Measured between the ups; the first one is their warm-up.
  const next = {cetus: downs.cetus.slice(1).values(), dockerd: downs.dockerd.slice(1).values()};
  await row('compose', 'docker-compose down -v', downs.cetus.length - 1, 1, (engine) => next[engine.name].next().value, {warmup: 0, exact: true});
}
