/** The calls that carry a container's files. */
import {pipeline} from 'node:stream/promises';
import type {Duplex} from 'node:stream';
import {holdBack} from '../../base/descriptor';
import {CetusError, asCetusError, isCetusError} from '../../base/errors';
import {noticeHangUp} from '../../base/hang-up';
import {uploadBody} from '../../base/upload';
import {LOAN_HEADER, loanOffer} from '../../schema/agent';
import type {PathStat} from '../../schema/rootfs';
import {decompress} from '../images/archive/decompress';
import {UNEXPECTED_END, failed} from '../rootfs/failures';
import type {WorkerReads} from '../rootfs/helper';
import type {Query} from './body';
import type {Context} from './routes';
import type {UpgradeContext} from './upgrades';

const TAR = 'application/x-tar';

export async function statPath({res, query, supervisor, parts, signal}: Context, id: string): Promise<void> {
  res.writeHead(200, header(await parts.files.stat(supervisor.unit(id), query.text('path'), signal))).end();
}

export async function getArchive({res, query, supervisor, parts, signal}: Context, id: string): Promise<void> {
  const {stat, tar} = await parts.files.pack(supervisor.unit(id), query.text('path'), signal);
  res.writeHead(200, {'content-type': TAR, ...header(stat)});
  await pipeline(tar, res);
}

export async function exportRoot({res, supervisor, parts, signal}: Context, id: string): Promise<void> {
  const tar = await parts.files.export(supervisor.unit(id), signal);
  res.writeHead(200, {'content-type': TAR});
  await pipeline(tar, res);
}

export async function putArchive({req, res, query, supervisor, parts, signal}: Context, id: string): Promise<void> {
  const body = uploadBody(req);
  try {
    await parts.files.unpack(supervisor.unit(id), targetOf(query), () => decompress(body), signal);
  } catch (err) {
    throw compressionFailure(err);
  } finally {
    body.destroy();
  }
  res.writeHead(200).end();
}

/** A plain tar, to the end of the caller's bytes. Switched at once, and answered in the stream by a line of JSON: the tar before it in turn may take as long as it likes. */
export async function receiveArchive({query, headers, supervisor, parts, accept, log}: UpgradeContext, id: string): Promise<void> {
  const unit = supervisor.unit(id);
  const loan = loanOffer(headers[LOAN_HEADER]);
  const stream = accept();
  const held = holdBack(stream);
  noticeHangUp(stream, true);
  const gone = new AbortController();
  stream.once('close', () => gone.abort(new CetusError('canceled', 'the caller hung up')));
  const target = {...targetOf(query), ...(held ? {descriptor: held.descriptor} : {}), ...(loan ? {loan} : {})};
  const archive = async (reads: WorkerReads): Promise<Duplex> => {
    if (!reads.descriptor) held?.release();
    if (headers[LOAN_HEADER] !== undefined) stream.write(`${JSON.stringify({taken: reads.loan})}\n`);
    return stream;
  };
  const answer = await parts.files.unpack(unit, target, archive, gone.signal).then(() => ({}), (err: unknown) => {
    log.debug({err, container: id}, 'an archive was refused');
    return asCetusError(err).toWire();
  });
  stream.end(`${JSON.stringify(answer)}\n`);
  // What still comes is dropped until the caller has read the answer: a connection closed over unread bytes would take it along.
  held?.release();
  stream.resume();
}

function targetOf(query: Query): {path: string; noOverwriteDirNonDir: boolean; copyUIDGID: boolean} {
  return {path: query.text('path'), noOverwriteDirNonDir: query.flag('noOverwriteDirNonDir'), copyUIDGID: query.flag('copyUIDGID')};
}

/** What zlib and the other unpackers say of an archive that breaks off or is none. */
function compressionFailure(err: unknown): unknown {
  const {code, message} = err as NodeJS.ErrnoException;
  if (!/^Z_/.test(code ?? '') && !(isCetusError(err, 'invalid') && /^invalid archive:/.test(message))) return err;
  return failed(code === 'Z_BUF_ERROR' || /unexpected end/i.test(message) ? UNEXPECTED_END : message);
}

function header(stat: PathStat): Record<string, string> {
  return {'x-docker-container-path-stat': Buffer.from(JSON.stringify(stat)).toString('base64')};
}
