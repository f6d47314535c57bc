/** README.md shows the differential test's tables as they are; CETUS_WRITE_TABLES=1 writes them. */
import fs from 'node:fs';
import path from 'node:path';
import {SCRIPTS} from '../differential/index';
import {HOST_OPERATIONS, operationOf, withTables} from '../differential/tables';

const README = path.join(__dirname, '../../lib/docker/README.md');
const steps = SCRIPTS.flatMap(({noun, steps: all}) => all.map((s) => ({noun, ...s})));

test('the tables of README.md are those of the scripts', () => {
  const document = fs.readFileSync(README, 'utf8');
  const wanted = withTables(document);
  if (process.env['CETUS_WRITE_TABLES']) fs.writeFileSync(README, wanted);
  else expect(document).toBe(wanted);
});

test('every operation of a container host is asked for', () => {
  const asked = new Set(steps.map((s) => operationOf(s.method, s.path)));
  expect(HOST_OPERATIONS.map((o) => o.id).filter((id) => !asked.has(id))).toEqual([]);
});

test('more than 300 requests, half of them mistakes, each with a name of its own', () => {
  expect(steps.length).toBeGreaterThan(300);
  expect(steps.filter((s) => s.mistake).length * 2).toBeGreaterThan(steps.length);
  const names = steps.map((s) => `${s.noun}: ${s.name}`);
  expect(names.filter((name, at) => names.indexOf(name) !== at)).toEqual([]);
});
