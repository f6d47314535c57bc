/** Where a secret was written down that should have been forgotten: log files, every bucket of the store, and Postgres's own files. */
import fs from 'node:fs';
import path from 'node:path';
import {BUCKETS} from '../../lib/schema/buckets';
import type {TestDatacenter} from './cetus';

export async function whereKept(dc: TestDatacenter, secrets: string[]): Promise<string[]> {
  const found: string[] = [];
  const look = (place: string, content: string | Buffer): void => {
    for (const secret of secrets) if (content.includes(secret)) found.push(`${place}: ${secret.slice(0, 4)}...`);
  };
  for (const {name} of Object.values(BUCKETS)) look(`bucket ${name}`, JSON.stringify(await dc.admin(`/v1/store/${name}?limit=1000`)));
  for (const file of filesBelow(path.join(dc.dataDir, 'log'))) look(file, fs.readFileSync(file));
  look('up.log', fs.readFileSync(path.join(dc.dataDir, 'up.log')));
  // The agents' own records; blobs and snapshots are the images' content, not ours.
  for (const file of dc.nodeDirs.flatMap((dir) => filesBelow(path.join(dir, 'agent')))) if (fs.statSync(file).size < 16 << 20) look(file, fs.readFileSync(file));
  return found;
}

function filesBelow(directory: string): string[] {
  return fs.readdirSync(directory, {withFileTypes: true}).flatMap((entry) => {
    const at = path.join(directory, entry.name);
    return entry.isDirectory() ? filesBelow(at) : entry.isFile() ? [at] : [];
  });
}
