/** What carries a container's files: docker cp, diff, export. */
import {CetusError} from '../../base/errors';
import type {Exchange, Handlers} from '../exchange';

const TAR = 'application/x-tar';
const STAT_HEADER = 'X-Docker-Container-Path-Stat';

function path(x: Exchange): string {
  const given = x.query.text('path');
  if (!given) throw new CetusError('invalid', "bad parameter: 'path' cannot be empty");
  return given;
}

async function stat(x: Exchange): Promise<void> {
  x.empty(200, {[STAT_HEADER]: await x.datacenter.containers.statPath(x.caller, x.param('id'), path(x))});
}

async function download(x: Exchange): Promise<void> {
  const {stat: described, body} = await x.datacenter.containers.getArchive(x.caller, x.param('id'), path(x));
  await x.stream(200, {'Content-Type': TAR, [STAT_HEADER]: described}, body);
}

async function upload(x: Exchange): Promise<void> {
  const options = {path: path(x), noOverwriteDirNonDir: x.query.bool('noOverwriteDirNonDir'), copyUIDGID: x.query.bool('copyUIDGID')};
  await x.datacenter.containers.putArchive(x.caller, x.param('id'), options, x.bodyStream());
  x.empty(200);
}

async function changes(x: Exchange): Promise<void> {
  const found = await x.datacenter.containers.changes(x.caller, x.param('id'));
  // The Engine says null where nothing changed.
  x.json(200, found.length ? found : null);
}

async function exportRootfs(x: Exchange): Promise<void> {
  await x.stream(200, {'Content-Type': 'application/octet-stream'}, await x.datacenter.containers.export(x.caller, x.param('id')));
}

export const fileHandlers: Handlers = {
  ContainerArchiveInfo: stat, ContainerArchive: download, PutContainerArchive: upload, ContainerChanges: changes, ContainerExport: exportRootfs,
};
