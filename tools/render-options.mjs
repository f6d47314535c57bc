// Writes the tables of options into lib/docker/README.md, between its two marks. After a build:  node tools/render-options.mjs
import fs from 'node:fs';
import {createRequire} from 'node:module';

const {withTable} = createRequire(import.meta.url)('../dist/docker/options-table.js');
const file = new URL('../lib/docker/README.md', import.meta.url);
fs.writeFileSync(file, withTable(fs.readFileSync(file, 'utf8')));
