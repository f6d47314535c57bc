/**
 * Which instance of this machine has which block of addresses: one file a block, made exclusively, so that instances started at the same
 * moment choose different ones although none has a bridge yet that the routes would show. A claim holds while its claimant lives, and from
 * then on while the instance.json in its data directory names the block; others are taken over.
 */
import fs from 'node:fs';
import path from 'node:path';
import {alive} from '../../base/alive';

interface Claim { dataDir: string; pid: number }

export class BlockClaims {
  constructor(private readonly directory = '/run/cetus/blocks') {}

  /** False where the block is another directory's. Repeatable. */
  claim(block: string, dataDir: string): boolean {
    const file = this.file(block);
    const claim: Claim = {dataDir: path.resolve(dataDir), pid: process.pid};
    fs.mkdirSync(this.directory, {recursive: true, mode: 0o755});
    // Linked into place, not written there: nobody may see half a claim and take it for nobody's.
    const own = `${file}.${process.pid}`;
    fs.writeFileSync(own, JSON.stringify(claim));
    try {
      for (let tries = 0; tries < 2; tries += 1) {
        if (linked(own, file)) return true;
        const holder = read<Claim>(file);
        if (holder?.dataDir === claim.dataDir) return true;
        if (holder && (alive(holder.pid) || holds(holder.dataDir, block))) return false;
        fs.rmSync(file, {force: true});
      }
      return false;
    } finally {
      fs.rmSync(own, {force: true});
    }
  }

  /** The directory that has the block; undefined where none has, or it has forgotten. */
  holder(block: string): string | undefined {
    const holder = read<Claim>(this.file(block));
    return holder && holds(holder.dataDir, block) ? holder.dataDir : undefined;
  }

  private file(block: string): string {
    return path.join(this.directory, block.replaceAll('/', '-'));
  }
}

function linked(own: string, file: string): boolean {
  try {
    fs.linkSync(own, file);
    return true;
  } catch (err) {
    if ((err as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw err;
  }
}

function holds(dataDir: string, block: string): boolean {
  return read<{addressPools: {base: string}[]}>(path.join(dataDir, 'instance.json'))?.addressPools.some(({base}) => base === block) ?? false;
}

/** Undefined for what is not there or is no JSON. */
function read<T>(file: string): T | undefined {
  try {
    return JSON.parse(fs.readFileSync(file, 'utf8')) as T;
  } catch {
    return undefined;
  }
}
