#!/usr/bin/env node
// Writes busybox:latest as an archive for `docker load`, made from the distribution's static busybox: a first image for a machine
// that reaches no registry. Usage: node tools/make-busybox-image.mjs [FILE]   (default: busybox.tar)
import {execFileSync} from 'node:child_process';
import {createHash} from 'node:crypto';
import fs from 'node:fs';
import tar from 'tar-stream';

const file = process.argv[2] ?? 'busybox.tar';
if (process.argv.length > 3 || file.startsWith('-')) {
  console.error('usage: make-busybox-image.mjs [FILE]');
  process.exit(2);
}
const program = ['/bin/busybox', '/usr/bin/busybox'].find((p) => fs.existsSync(p));
if (!program) {
  console.error('busybox is not installed: apt-get install busybox-static');
  process.exit(1);
}
if (execFileSync(program, ['--help'], {encoding: 'utf8'}) === '' || dynamic(program)) {
  console.error(`${program} needs shared libraries: apt-get install busybox-static`);
  process.exit(1);
}

/** An ELF file with an interpreter (program header type 3) cannot run in an image that holds nothing else. */
function dynamic(path) {
  const elf = fs.readFileSync(path);
  const wide = elf[4] === 2;
  const offset = wide ? Number(elf.readBigUInt64LE(32)) : elf.readUInt32LE(28);
  const [size, count] = wide ? [elf.readUInt16LE(54), elf.readUInt16LE(56)] : [elf.readUInt16LE(42), elf.readUInt16LE(44)];
  return Array.from({length: count}, (_, i) => elf.readUInt32LE(offset + i * size)).includes(3);
}

async function pack(entries) {
  const out = tar.pack();
  for (const {content = '', ...header} of entries) out.entry({mtime: new Date(0), mode: header.type === 'directory' ? 0o755 : 0o644, ...header}, content);
  out.finalize();
  const chunks = [];
  for await (const chunk of out) chunks.push(chunk);
  return Buffer.concat(chunks);
}

const hex = (bytes) => createHash('sha256').update(bytes).digest('hex');
const applets = execFileSync(program, ['--list-full'], {encoding: 'utf8'}).trim().split('\n').filter((a) => a.includes('/') && a !== 'bin/busybox').sort();
const layer = await pack([
  ...['bin', 'dev', 'etc', 'home', 'proc', 'root', 'run', 'sbin', 'sys', 'usr', 'usr/bin', 'usr/sbin', 'var'].map((name) => ({name, type: 'directory'})),
  {name: 'tmp', type: 'directory', mode: 0o1777},
  {name: 'bin/busybox', mode: 0o755, content: fs.readFileSync(program)},
  {name: 'etc/passwd', content: 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n'},
  {name: 'etc/group', content: 'root:x:0:\nnogroup:x:65534:\n'},
  ...applets.map((name) => ({name, type: 'symlink', mode: 0o777, linkname: '/bin/busybox'})),
]);
const architecture = {x64: 'amd64', arm64: 'arm64', arm: 'arm', ppc64: 'ppc64le', s390x: 's390x', riscv64: 'riscv64'}[process.arch];
if (!architecture) throw new Error(`no image can be made on ${process.arch}`);
const config = JSON.stringify({
  architecture, os: 'linux', created: '2026-01-01T00:00:00Z',
  config: {Env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'], Cmd: ['sh']},
  rootfs: {type: 'layers', diff_ids: [`sha256:${hex(layer)}`]}, history: [{created: '2026-01-01T00:00:00Z', created_by: 'ADD busybox-static /'}],
});
const [configName, layerName] = [`${hex(config)}.json`, `${hex(layer)}/layer.tar`];
fs.writeFileSync(file, await pack([
  {name: configName, content: config}, {name: layerName, content: layer},
  {name: 'manifest.json', content: JSON.stringify([{Config: configName, RepoTags: ['busybox:latest'], Layers: [layerName]}])},
]));
console.log(`${file}: busybox:latest with ${applets.length} applets. Load it with: docker load -i ${file}`);
