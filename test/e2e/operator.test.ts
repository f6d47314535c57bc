/** The operator's verbs, and the same by REST. */
import http from 'node:http';
import {datacenterWithBusybox} from '../harness/suite';

const dc = datacenterWithBusybox({prepare: () => dc.ok(['run', '-d', '--name', 'placed', '-m', '16m', 'busybox', 'sleep', '1000'])});

const cetus = async (...args: string[]): Promise<string> => {
  const done = await dc.cetus(args);
  if (done.status !== 0) throw new Error(`cetus ${args.join(' ')}: ${done.stderr}`);
  return done.stdout;
};

/** The one that has it: of several, the one that its mark on the machine says. */
const nodeOf = async (container: string): Promise<string> => {
  const nodes = JSON.parse(await cetus('node', 'ls', '--json')) as {name: string}[];
  return dc.isFleet ? (await dc.nodeOf(container)).name : nodes[0]!.name;
};

test('node ls', async () => {
  expect(await cetus('node', 'ls')).toMatch(/alive/);
});

test('ps --wide names the node', async () => {
  expect(await cetus('ps', '--wide')).toMatch(new RegExp(`placed.*${await nodeOf('placed')}`));
});

test('job ls and job show: steps, timings, reasons', async () => {
  expect(await cetus('job', 'ls')).toMatch(/container\.provision.*succeeded/);
  const jobs = JSON.parse(await cetus('job', 'ls', '--json')) as {id: string; workflow: string}[];
  const provision = jobs.find((j) => j.workflow === 'container.provision')!;
  const shown = await cetus('job', 'show', provision.id);
  expect(shown).toMatch(/succeeded/);
  expect(shown).toMatch(/ms/);
  expect(shown).toMatch(/placed on .*\d nodes? considered\nNODE +SCORE/);
});

test('why', async () => {
  expect(await cetus('why', 'placed')).toMatch(new RegExp(await nodeOf('placed')));
  expect((await dc.cetus(['why', 'nosuch'])).status).not.toBe(0);
});

test('a container that fits nowhere: refused with what would have fitted, and explained afterwards', async () => {
  const refused = await dc.docker(['run', '-d', '--name', 'giant', '-m', '900g', 'busybox', 'true']);
  expect(refused.status).not.toBe(0);
  expect(refused.stderr).toMatch(/memory/i);
  expect(await cetus('why', 'giant')).toMatch(/memory/i);
});

test('the same by REST, as its OpenAPI document says', async () => {
  const document = await get<{openapi: string; paths: Record<string, unknown>}>('/openapi.json');
  expect(document.openapi).toMatch(/^3\./);
  expect(Object.keys(document.paths)).toEqual(expect.arrayContaining(['/v1/nodes', '/v1/jobs', '/v1/containers']));
  const found = await get<{value: {name: string}}[]>(`/v1/store/containers?filter=${encodeURIComponent('(name=placed)')}`);
  expect(found.map((o) => o.value.name)).toEqual(['placed']);
});

function get<T>(path: string): Promise<T> {
  return new Promise((resolve, reject) => {
    http.get({socketPath: dc.running.admin.replace('unix://', ''), path}, (res) => {
      let text = '';
      res.setEncoding('utf8').on('data', (c: string) => { text += c; }).on('end', () => (res.statusCode === 200 ? resolve(JSON.parse(text) as T) : reject(new Error(`${path}: ${res.statusCode} ${text}`))));
    }).on('error', reject);
  });
}
