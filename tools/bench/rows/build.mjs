// docker build with the classic builder and BuildKit: a Dockerfile of ten steps, cold and out of the cache, as Debian's client sends it (it speaks both).
import {execFileSync} from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';

const CLIENT = '/usr/bin/docker';
const DOCKERFILE = `FROM busybox
ENV PLACE=/srv
WORKDIR /srv
COPY app/ ./
RUN echo one > one
RUN cat one > two && mkdir -p lib && cp two lib/
COPY config /etc/config
RUN sh -c 'for i in 1 2 3 4 5 6 7 8; do cp two lib/$i; done'
LABEL made=bench
CMD ["cat", "two"]
`;

export default async function build({row, isWanted, dir, cetus, dockerd}) {
  if (!isWanted('build')) return;
  const context = path.join(dir, 'build-context');
  fs.mkdirSync(path.join(context, 'app'), {recursive: true});
  fs.writeFileSync(path.join(context, 'Dockerfile'), DOCKERFILE);
  fs.writeFileSync(path.join(context, 'config'), 'a=b\n');
  for (let n = 0; n < 50; n += 1) fs.writeFileSync(path.join(context, 'app', `file-${n}`), 'x'.repeat(4096));
  const builds = (engine, kit, ...args) => execFileSync(CLIENT, ['build', '-q', '-t', 'bench-build', ...args, context], {
    stdio: ['ignore', 'ignore', 'pipe'], env: {...process.env, DOCKER_HOST: engine.host, DOCKER_BUILDKIT: kit ? '1' : '0'}});
  // The engine that builds for Cetus is warm, as dockerd is.
  for (const engine of [cetus, dockerd]) for (const kit of [false, true]) builds(engine, kit);
  await row('build', 'docker build, 10 steps, classic', 7, 1, (engine) => builds(engine, false, '--no-cache'));
  await row('build', 'docker build, 10 steps, BuildKit', 7, 1, (engine) => builds(engine, true, '--no-cache'));
  await row('build', '... cached, classic', 11, 1, (engine) => builds(engine, false));
  await row('build', '... cached, BuildKit', 11, 1, (engine) => builds(engine, true));
}
