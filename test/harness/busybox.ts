/** busybox:latest as `docker save` writes it, made from the distribution's static busybox: end-to-end tests need no registry. */
import {execFileSync} from 'node:child_process';
import {createHash} from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {pack} from 'tar-stream';

const FILE = path.join(os.tmpdir(), `cetus-test-busybox-${process.getuid?.() ?? 0}.tar`);

/** The archive's path; made once per machine, put in place whole so that test files may ask for it at the same time. */
export async function busyboxArchive(): Promise<string> {
  if (fs.existsSync(FILE)) return FILE;
  const busybox = fs.readFileSync(['/bin/busybox', '/usr/bin/busybox'].find((f) => fs.existsSync(f))!);
  const applets = execFileSync('busybox', ['--list-full'], {encoding: 'utf8'}).trim().split('\n').filter((a) => a !== 'bin/busybox');
  const files: Entry[] = [
    ...['bin', 'sbin', 'usr', 'usr/bin', 'usr/sbin', 'etc', 'root', 'var', 'proc', 'sys', 'dev'].map((name): Entry => ({name, type: 'directory', mode: 0o755})),
    {name: 'tmp', type: 'directory', mode: 0o1777},
    {name: 'bin/busybox', type: 'file', mode: 0o755, content: busybox},
    {name: 'etc/passwd', type: 'file', mode: 0o644, content: Buffer.from('root:x:0:0:root:/root:/bin/sh\nwww:x:33:33:www:/var:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n')},
    {name: 'etc/group', type: 'file', mode: 0o644, content: Buffer.from('root:x:0:\nwww:x:33:\nextra:x:50:www\nnogroup:x:65534:\n')},
    ...applets.filter((a) => a.includes('/')).map((name): Entry => ({name, type: 'symlink', mode: 0o777, linkname: '/bin/busybox'})),
  ];
  const layer = await tar(files);
  const diffId = `sha256:${createHash('sha256').update(layer).digest('hex')}`;
  const config = Buffer.from(JSON.stringify({
    architecture: process.arch === 'arm64' ? 'arm64' : 'amd64', os: 'linux', created: '2026-01-01T00:00:00Z',
    config: {Env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'], Cmd: ['sh']},
    rootfs: {type: 'layers', diff_ids: [diffId]}, history: [{created: '2026-01-01T00:00:00Z', created_by: 'ADD busybox /'}],
  }));
  const configName = `${createHash('sha256').update(config).digest('hex')}.json`;
  const archive = await tar([
    {name: configName, type: 'file', mode: 0o644, content: config},
    {name: 'layer', type: 'directory', mode: 0o755},
    {name: 'layer/layer.tar', type: 'file', mode: 0o644, content: layer},
    {name: 'manifest.json', type: 'file', mode: 0o644, content: Buffer.from(JSON.stringify([{Config: configName, RepoTags: ['busybox:latest'], Layers: ['layer/layer.tar']}]))},
  ]);
  const temporary = `${FILE}.${process.pid}`;
  fs.writeFileSync(temporary, archive);
  fs.renameSync(temporary, FILE);
  return FILE;
}

interface Entry { name: string; type: 'file' | 'directory' | 'symlink'; mode: number; content?: Buffer; linkname?: string }

async function tar(entries: Entry[]): Promise<Buffer> {
  const out = pack();
  for (const {content, ...header} of entries) out.entry({...header, mtime: new Date(0)}, content ?? Buffer.alloc(0));
  out.finalize();
  const chunks: Buffer[] = [];
  for await (const chunk of out) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}
