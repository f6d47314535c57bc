/** The calls that become raw streams: attach to a container, start an exec, a tar into a container, a connection to one of its ports, and what a builder says to its client. */
import type {IncomingHttpHeaders} from 'node:http';
import type {Duplex} from 'node:stream';
import {CetusError} from '../../base/errors';
import {readLogs} from '../logs/read';
import {attachStream} from '../stdio/attach';
import {parseDetachKeys} from '../stdio/detach';
import {frame} from '../stdio/frames';
import type {ContainerUnit} from '../container/unit';
import {drained} from './answers';
import type {Query} from './body';
import {buildStream} from './builds';
import {dial} from './dial';
import {receiveArchive} from './files';
import type {ServerParts} from './server';

/** Answers 101 and hands the stream over. Not called: the caller gets the error that was thrown. */
export type Accept = () => Duplex;
export interface UpgradeContext extends ServerParts { query: Query; headers: IncomingHttpHeaders; accept: Accept }
type Upgrade = (context: UpgradeContext) => Promise<void>;

export function findUpgrade(method: string, path: string): Upgrade {
  if (method === 'POST' && path === '/v1/builds/stream') return buildStream;
  const match = /^\/v1\/(containers|execs)\/([^/]+)\/(attach|start|archive|dial)$/.exec(path);
  if (method === 'POST' && match) {
    const id = decodeURIComponent(match[2]!);
    if (match[1] === 'containers' && match[3] === 'attach') return (context) => attach(context, id);
    if (match[1] === 'containers' && match[3] === 'dial') return (context) => dial(context, id);
    if (match[1] === 'containers' && match[3] === 'archive') return (context) => receiveArchive(context, id);
    if (match[1] === 'execs' && match[3] === 'start') return (context) => startExec(context, id);
  }
  throw new CetusError('notFound', `no such stream: ${method} ${path}`);
}

async function startExec({execs, query, accept}: UpgradeContext, id: string): Promise<void> {
  await execs.start(id, {detachKeys: query.text('detachKeys'), consoleSize: query.size('consoleSize'), detach: query.flag('detach')}, accept);
}

async function attach({supervisor, query, accept}: UpgradeContext, id: string): Promise<void> {
  const unit = supervisor.unit(id);
  const {config} = unit.spec;
  const {status} = unit.observation;
  if (status === 'paused') throw new CetusError('conflict', `container ${id} is paused, unpause the container before attach`);
  if (status === 'restarting') throw new CetusError('conflict', `container ${id} is restarting, wait until the container is running`);
  const options = {
    stdin: query.flag('stdin') && config.OpenStdin === true, stdout: query.flag('stdout'), stderr: query.flag('stderr'),
    tty: unit.tty, closesStdin: config.StdinOnce === true, detachKeys: query.text('detachKeys'),
  };
  parseDetachKeys(options.detachKeys);
  const replay = query.flag('logs');
  const stream = query.flag('stream');
  if (!replay) {
    if (!stream) return void accept().end();
    // Attaching to an ended container waits for its next start, as `docker start -a` needs.
    unit.renewHub();
    const hub = unit.hub;
    await attachStream(hub, accept(), options);
    return;
  }
  const source = unit.logSource();
  const hub = unit.hub;
  // Nothing is read from the container while its past is replayed: the seam has neither gap nor overlap.
  const release = hub.hold();
  const open = {1: unit.openLine(1), 2: unit.openLine(2)};
  const duplex = accept();
  try {
    await replayInto(duplex, unit, source, options, open);
    if (stream && unit.running) void attachStream(hub, duplex, options);
    else duplex.end();
  } finally {
    release();
  }
}

async function replayInto(
  duplex: Duplex, unit: ContainerUnit, source: ReturnType<ContainerUnit['logSource']>, options: {stdout: boolean; stderr: boolean}, open: Record<1 | 2, Buffer>,
): Promise<void> {
  const query = {...options, follow: false, timestamps: false, details: false, sinceNs: '', untilNs: '', tail: -1, multiplex: !unit.tty};
  for await (const chunk of readLogs(source, query)) {
    if (!duplex.write(chunk) && !duplex.destroyed) await drained(duplex);
    if (duplex.destroyed) return;
  }
  for (const stream of [1, 2] as const) {
    if ((stream === 1 ? options.stdout : options.stderr) && open[stream].length) duplex.write(unit.tty ? open[stream] : frame(stream, open[stream]));
  }
}
