/** docker exec: create, start (hijacked), inspect, resize. */
import type {Socket} from 'node:net';
import type {Duplex} from 'node:stream';
import {CetusError, type ErrorKind, asCetusError} from '../../base/errors';
import type {ExecConfig} from '../../schema/docker';
import {readBody, readOptionalBody} from '../body';
import type {Exchange, Handlers} from '../exchange';
import {closeGently, joinStreams} from '../hijack';
import {EXEC_CHANGES, fromOlder} from '../older-bodies';
import {terminalSize} from './containers';
import {RAW_STREAM, streamType} from './streams';

const STDOUT = 1;

async function create(x: Exchange): Promise<void> {
  const config = fromOlder(await readBody<ExecConfig>(x, 'execCreate'), EXEC_CHANGES, (minor) => x.speaks(minor));
  if (!config.Cmd?.length) throw new CetusError('invalid', 'No exec command specified');
  const {id} = await x.datacenter.execs.create(x.caller, x.param('id'), config);
  x.json(201, {Id: id});
}

interface ExecStartBody { Detach?: boolean; Tty?: boolean; ConsoleSize?: [number, number] }

async function start(x: Exchange): Promise<void> {
  const body = await readOptionalBody<ExecStartBody>(x, 'execStart');
  const detach = body.Detach === true;
  const query = {detachKeys: '', consoleSize: (x.speaks(42) && body.ConsoleSize) || null, detach, ...(body.Tty === undefined ? {} : {tty: body.Tty})};
  let started: {stream: Duplex | null; tty: boolean};
  try {
    started = await x.datacenter.execs.start(x.caller, x.param('id'), query);
  } catch (err) {
    if (detach || !saidOnTheStream(err)) throw err;
    const tty = body.Tty === true;
    sayOnTheStream(x.takeOver(typeOf(x, tty)), tty, asCetusError(err).shown);
    return;
  }
  const {stream, tty} = started;
  if (!stream) return x.empty(200);
  if (x.gone) {
    stream.destroy();
    return;
  }
  await joinStreams(x.takeOver(typeOf(x, tty)), stream);
}

const typeOf = (x: Exchange, tty: boolean): string => (x.request.headers.upgrade === undefined ? RAW_STREAM : streamType(x, tty));

/**
 * A command that cannot be run (not found, not executable) is told on the stream, after the upgrade, as the Engine does: the CLI then asks
 * for the exit code (126, 127) instead of reporting a failed upgrade. Errors about the exec itself have a status.
 */
const ON_THE_STREAM: ReadonlySet<ErrorKind> = new Set<ErrorKind>(['invalid', 'forbidden', 'internal']);
const saidOnTheStream = (err: unknown): boolean => ON_THE_STREAM.has(asCetusError(err).kind);

function sayOnTheStream(socket: Socket, tty: boolean, message: string): void {
  const text = Buffer.from(`${message}\r\n`);
  if (!tty) {
    const frame = Buffer.alloc(8);
    frame[0] = STDOUT;
    frame.writeUInt32BE(text.length, 4);
    socket.write(frame);
  }
  socket.write(text);
  closeGently(socket);
}

async function inspect(x: Exchange): Promise<void> {
  const {exec, live} = await x.datacenter.execs.get(x.caller, x.param('id'));
  const {config} = exec;
  const [entrypoint = '', ...args] = config.Cmd ?? [];
  x.json(200, {
    ID: exec.id,
    Running: live?.running ?? exec.running,
    ExitCode: live ? live.exitCode : exec.exitCode,
    ProcessConfig: {tty: config.Tty ?? false, entrypoint, arguments: args, privileged: config.Privileged ?? false, ...(config.User ? {user: config.User} : {})},
    OpenStdin: config.AttachStdin ?? false,
    OpenStderr: config.AttachStderr ?? false,
    OpenStdout: config.AttachStdout ?? false,
    // A mark of the Engine's own sweep; what has been swept is not found any more.
    CanRemove: false,
    ContainerID: exec.containerId,
    DetachKeys: config.DetachKeys ?? '',
    Pid: live?.pid ?? exec.pid,
  });
}

async function resize(x: Exchange): Promise<void> {
  const {height, width} = terminalSize(x);
  await x.datacenter.execs.resize(x.caller, x.param('id'), height, width);
  x.empty(200);
}

export const execHandlers: Handlers = {ContainerExec: create, ExecStart: start, ExecInspect: inspect, ExecResize: resize};
