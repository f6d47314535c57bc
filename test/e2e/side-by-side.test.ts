/** Two datacenters on one machine, with directories and ports of their own: neither sees, stops or loses anything of the other's. */
import {busyboxArchive} from '../harness/busybox';
import {NOTHING_LEFT, startCetus, type TestDatacenter} from '../harness/cetus';
import {until} from '../harness/wait';

let both: TestDatacenter[] = [];

beforeAll(async () => {
  both = await Promise.all([startCetus(), startCetus()]);
  const archive = await busyboxArchive();
  for (const dc of both) await dc.ok(['load', '-i', archive]);
}, 240_000);
afterAll(async () => {
  for (const dc of both) expect(await dc.destroy()).toEqual(NOTHING_LEFT);
}, 240_000);

/** From another container of the same network. */
async function fetchedInside(dc: TestDatacenter): Promise<string> {
  const address = await dc.ok(['inspect', '-f', '{{(index .NetworkSettings.Networks "shared-name").IPAddress}}', 'web']);
  return until('the server inside to answer', async () => (await dc.docker(['run', '--rm', '--network', 'shared-name', 'busybox', 'wget', '-qO-', `http://${address}/`])).stdout.trim());
}

test('the same names, networks and containers in both, at once', async () => {
  await Promise.all(both.map(async (dc, n) => {
    await dc.ok(['network', 'create', 'shared-name']);
    await dc.ok(['run', '-d', '--name', 'web', '--network', 'shared-name', '-p', '0:80', 'busybox', 'sh', '-c', `mkdir /w; echo datacenter ${n} > /w/index.html; exec httpd -f -h /w`]);
  }));
  for (const [n, dc] of both.entries()) {
    expect(await dc.ok(['ps', '--format', '{{.Names}}'])).toBe('web');
    expect(await fetchedInside(dc)).toBe(`datacenter ${n}`);
    const port = (await dc.ok(['port', 'web', '80'])).split('\n')[0]!.split(':').pop()!;
    expect(await (await fetch(`http://127.0.0.1:${port}/`)).text()).toBe(`datacenter ${n}\n`);
  }
  const subnets = await Promise.all(both.map((dc) => dc.ok(['network', 'inspect', '-f', '{{(index .IPAM.Config 0).Subnet}}', 'shared-name'])));
  expect(subnets[0]).not.toBe(subnets[1]);
}, 240_000);

test('one goes down wholly; the other does not notice', async () => {
  const [first, second] = both as [TestDatacenter, TestDatacenter];
  const pid = await second.ok(['inspect', '-f', '{{.State.Pid}}', 'web']);
  const port = (await second.ok(['port', 'web', '80'])).split('\n')[0]!.split(':').pop()!;
  expect(await first.destroy()).toEqual(NOTHING_LEFT);
  both = [second];
  expect(await second.ok(['inspect', '-f', '{{.State.Pid}} {{.State.Running}}', 'web'])).toBe(`${pid} true`);
  expect(await (await fetch(`http://127.0.0.1:${port}/`)).text()).toBe('datacenter 1\n');
  expect(await fetchedInside(second)).toBe('datacenter 1');
  expect(second.traces().tables).not.toEqual([]);
}, 240_000);
