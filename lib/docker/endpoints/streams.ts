/** Container operations that last: attach, logs, wait, stats. */
import {asCetusError, CetusError} from '../../base/errors';
import type {WaitCondition} from '../../datacenter/verbs';
import type {Exchange, Handlers} from '../exchange';
import {joinStreams} from '../hijack';
import {checkHandshake, joinWebSocket} from '../websocket';

export const RAW_STREAM = 'application/vnd.docker.raw-stream';
const MULTIPLEXED_STREAM = 'application/vnd.docker.multiplexed-stream';

/** Only clients from 1.42 on are told that frames follow, and only where they are frames. */
export function streamType(x: Exchange, tty: boolean): string {
  return !tty && x.speaks(42) ? MULTIPLEXED_STREAM : RAW_STREAM;
}

async function attach(x: Exchange): Promise<void> {
  const {query} = x;
  // dockerode says its options once more in a body, which must not become stdin.
  await x.skipBody();
  const {stream, tty} = await x.datacenter.containers.attach(x.caller, x.param('id'), {
    stdin: query.bool('stdin'), stdout: query.bool('stdout'), stderr: query.bool('stderr'), logs: query.bool('logs'), stream: query.bool('stream'), detachKeys: query.text('detachKeys'),
  });
  if (x.gone) {
    stream.destroy();
    return;
  }
  // Without an upgrade the Engine calls the stream raw, whatever it holds.
  const type = x.request.headers.upgrade === undefined ? RAW_STREAM : streamType(x, tty);
  await joinStreams(x.takeOver(type), stream);
}

async function attachWebSocket(x: Exchange): Promise<void> {
  const {query} = x;
  // As the Engine: whether there is a container comes before how it is asked for.
  await x.datacenter.containers.get(x.caller, x.param('id'));
  checkHandshake(x.request);
  // Older clients are given everything, whatever they ask for.
  const wants = (name: string): boolean => !x.speaks(42) || query.bool(name);
  const {stream, tty} = await x.datacenter.containers.attach(x.caller, x.param('id'), {
    stdin: wants('stdin'), stdout: wants('stdout'), stderr: wants('stderr'), logs: query.bool('logs'), stream: query.bool('stream'), detachKeys: query.text('detachKeys'),
  });
  if (x.gone) {
    stream.destroy();
    return;
  }
  const ws = await x.takeOverWebSocket().catch((err: unknown) => {
    stream.destroy();
    throw err;
  });
  await joinWebSocket(ws, stream, {binary: x.speaks(28), framed: !tty});
}

async function logs(x: Exchange): Promise<void> {
  const {query} = x;
  const stdout = query.bool('stdout');
  const stderr = query.bool('stderr');
  if (!stdout && !stderr) throw new CetusError('invalid', 'Bad parameters: you must choose at least one stream');
  // Anything but a number means all lines, as in the Engine.
  const tail = /^\d+$/.test(query.text('tail')) ? Number(query.text('tail')) : -1;
  const {stream, tty} = await x.datacenter.containers.logs(x.caller, x.param('id'), {
    stdout, stderr, tail, follow: query.bool('follow'), timestamps: query.bool('timestamps'), details: query.bool('details'),
    sinceNs: bound(query.timestampNs('since')), untilNs: bound(query.timestampNs('until')),
  });
  await x.stream(200, {'Content-Type': streamType(x, tty)}, stream);
}

/** 0 is what clients send for "no bound". */
const bound = (ns: bigint | undefined): string => (ns === undefined || ns === 0n ? '' : ns.toString());

const CONDITIONS: Record<string, WaitCondition> = {'': 'not-running', 'not-running': 'not-running', 'next-exit': 'next-exit', removed: 'removed'};

async function wait(x: Exchange): Promise<void> {
  const asked = x.speaks(30) ? x.query.text('condition') : '';
  const condition = CONDITIONS[asked];
  if (!condition) throw new CetusError('invalid', `invalid condition: ${JSON.stringify(asked)}`);
  const {outcome} = await x.datacenter.containers.wait(x.caller, x.param('id'), condition);
  // The wait is armed: say so at once. `docker run` starts the container only when it has seen these headers.
  const out = x.begin(200, {'Content-Type': 'application/json'});
  let answer: object;
  try {
    const {exitCode, error} = await outcome;
    answer = {StatusCode: exitCode, ...(error ? {Error: {Message: error}} : {})};
  } catch (err) {
    if (x.gone) return;
    answer = {StatusCode: -1, Error: {Message: asCetusError(err).shown}};
  }
  if (!x.gone) out.end(`${JSON.stringify(answer)}\n`);
}

async function stats(x: Exchange): Promise<void> {
  const stream = x.query.bool('stream', true);
  const oneShot = x.speaks(41) && x.query.bool('one-shot');
  if (stream && oneShot) throw new CetusError('invalid', 'cannot have stream=true and one-shot=true');
  // The node writes the Engine's objects: numbers of 64 bits are passed on as they are printed.
  const samples = await x.datacenter.containers.stats(x.caller, x.param('id'), {stream, oneShot});
  await x.stream(200, {'Content-Type': 'application/json'}, samples);
}

export const streamHandlers: Handlers = {ContainerAttach: attach, ContainerAttachWebsocket: attachWebSocket, ContainerLogs: logs, ContainerWait: wait, ContainerStats: stats};
