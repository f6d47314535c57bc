import fs from 'node:fs';
import path from 'node:path';

/** package.json is two levels up from lib/main and from dist/main alike. */
export const VERSION = (JSON.parse(fs.readFileSync(path.resolve(__dirname, '../../package.json'), 'utf8')) as {version: string}).version;
