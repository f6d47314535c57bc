/** docker build: both builders, sessions, the control API that buildx speaks, cancel and prune of the cache. */
import type {IncomingHttpHeaders} from 'node:http';
import {CetusError} from '../../base/errors';
import type {BuildHeaders} from '../../datacenter/verbs';
import type {Exchange, Handlers} from '../exchange';
import {joinStreams} from '../hijack';
import {proxyControl} from './build-control';

const MAX_PRUNE_BYTES = Number.MAX_SAFE_INTEGER;

async function build(x: Exchange): Promise<void> {
  const query = x.query.copy();
  // As in the Engine: bodies of another kind are refused before anything is read.
  const type = x.request.headers['content-type'];
  await x.lines(x.datacenter.builds.build(x.caller, query, x.bodyStream(), {...(type ? {'content-type': type} : {}), ...pick(x.request.headers, 'x-registry-config')}));
}

async function session(x: Exchange): Promise<void> {
  requireH2c(x);
  const held = await x.datacenter.builds.open(x.caller);
  try {
    const stream = await held.stream('/session', pick(x.request.headers, 'x-docker-expose-session-'));
    if (x.gone) stream.destroy();
    else await joinStreams(x.takeOver('', 'h2c'), stream);
  } finally {
    await held.close();
  }
}

async function control(x: Exchange): Promise<void> {
  requireH2c(x);
  const held = await x.datacenter.builds.open(x.caller);
  try {
    const stream = await held.stream('/grpc', {});
    if (x.gone) stream.destroy();
    else await proxyControl(x.takeOver('', 'h2c'), stream, (imageIds) => held.settle(imageIds), x.log);
  } finally {
    await held.close();
  }
}

function requireH2c(x: Exchange): void {
  const {upgrade} = x.request.headers;
  if (upgrade === undefined) throw new CetusError('invalid', 'no upgrade proto in request');
  if (upgrade !== 'h2c') throw new CetusError('invalid', `protocol ${upgrade} not supported`);
}

async function cancel(x: Exchange): Promise<void> {
  const id = x.query.text('id');
  if (!id) throw new CetusError('invalid', 'build ID not provided');
  await x.datacenter.builds.cancel(x.caller, id);
  x.empty(200);
}

async function prune(x: Exchange): Promise<void> {
  const query = new URLSearchParams();
  const filters = x.query.filters();
  if (Object.keys(filters).length > 0) query.set('filters', JSON.stringify(filters));
  if (x.query.bool('all')) query.set('all', '1');
  // Newer clients' word for the same.
  const keep = x.query.int('reserved-space') ?? x.query.int('keep-storage');
  if (keep !== undefined && (keep < 0 || keep > MAX_PRUNE_BYTES)) throw new CetusError('invalid', 'keep-storage is in bytes and expects an integer');
  if (keep !== undefined) query.set('keep-storage', String(keep));
  x.json(200, await x.datacenter.builds.prune(x.caller, query));
}

function pick(headers: IncomingHttpHeaders, prefix: string): BuildHeaders {
  return Object.fromEntries(Object.entries(headers).filter((entry): entry is [string, string | string[]] => entry[0].startsWith(prefix) && entry[1] !== undefined));
}

export const buildHandlers: Handlers = {ImageBuild: build, Session: session, BuildControl: control, BuildCancel: cancel, BuildPrune: prune};
