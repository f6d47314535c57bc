/** The calls that carry a container's files. */
import {pipeline} from 'node:stream/promises';
import {isCetusError} from '../../base/errors';
import {uploadBody} from '../../base/upload';
import type {PathStat} from '../../schema/rootfs';
import {decompress} from '../images/archive/decompress';
import {UNEXPECTED_END, failed} from '../rootfs/failures';
import type {Context} from './routes';

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
  const target = {path: query.text('path'), noOverwriteDirNonDir: query.flag('noOverwriteDirNonDir'), copyUIDGID: query.flag('copyUIDGID')};
  const body = uploadBody(req);
  try {
    await parts.files.unpack(supervisor.unit(id), target, () => decompress(body), signal);
  } catch (err) {
    throw compressionFailure(err);
  } finally {
    body.destroy();
  }
  res.writeHead(200).end();
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
