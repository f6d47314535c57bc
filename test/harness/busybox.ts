/** busybox:latest as `docker save` writes it, made from the distribution's static busybox: end-to-end tests need no registry. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {buildImage, busyboxLayer, dockerArchive} from './images';

const FILE = path.join(os.tmpdir(), `cetus-test-busybox-${process.getuid?.() ?? 0}.tar`);

/** The archive's path; made once per machine, put in place whole so that test files may ask for it at the same time. */
export async function busyboxArchive(): Promise<string> {
  if (fs.existsSync(FILE)) return FILE;
  const archive = await dockerArchive([{image: buildImage([await busyboxLayer('none')]), tags: ['busybox:latest']}]);
  const temporary = `${FILE}.${process.pid}`;
  fs.writeFileSync(temporary, archive);
  fs.renameSync(temporary, FILE);
  return FILE;
}
