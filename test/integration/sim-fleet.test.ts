/** The simulated fleet of the bench, small: fifty nodes before a real endpoint, a hundred containers through the Docker API, each of them on one node. */
import {Datacenter} from '../../tools/bench-fleet/datacenter';
import {Docker} from '../../tools/bench-fleet/docker';
import {Workload} from '../../tools/bench-fleet/workload';
import {ALL} from '../../lib/moray/filter';
import {BUCKETS} from '../../lib/schema/buckets';
import type {Container} from '../../lib/schema/container';
import type {Node} from '../../lib/schema/node';
import {until} from '../harness/wait';

const NODES = 50;
const CONTAINERS = 100;
/** In two processes, as a fleet is that needs more descriptors than one may have. */
const PER_PROCESS = 30;

describe('a simulated fleet', () => {
  const datacenter = new Datacenter({nodes: NODES, perProcess: PER_PROCESS});
  let docker: Docker;

  beforeAll(async () => {
    await datacenter.start();
    docker = new Docker(datacenter.address, 8);
  }, 120_000);
  afterAll(async () => {
    await docker?.close();
    await datacenter.stop();
  }, 60_000);

  it('joins, runs what it is given, once each, and is shown', async () => {
    const workload = new Workload(docker, 'projects', 8);
    await workload.pull();
    const {ids} = await workload.provision(await workload.prepare(CONTAINERS));
    expect(new Set(ids).size).toBe(CONTAINERS);

    const nodes: Node[] = [];
    for await (const {value} of datacenter.moray.find<Node>(BUCKETS.nodes.name, ALL)) nodes.push(value);
    expect(nodes.map((node) => node.liveness)).toEqual(Array(NODES).fill('alive'));

    expect(datacenter.fleet.pids).toHaveLength(2);
    // By the word of those who run them, who report to the endpoint, which tells the client.
    const running = await datacenter.fleet.running();
    expect([...running.keys()].sort()).toEqual([...ids].sort());
    for (const on of running.values()) expect(on).toHaveLength(1);
    const listed = await docker.call<{Id: string; State: string; Labels: object}[]>('GET', '/containers/json');
    expect(listed.map((one) => one.Id).sort()).toEqual([...ids].sort());
    const stored = await datacenter.moray.get<Container>(BUCKETS.containers.name, ids[0]!);
    expect(running.get(ids[0]!)).toEqual([Number.parseInt(stored.value.nodeId.slice(-12), 16)]);

    await docker.call('DELETE', `/containers/${ids[0]}?force=1`);
    await until('the removed one to be gone from its node', async () => !(await datacenter.fleet.running()).has(ids[0]!));
  });

  it('loses nodes with what runs there', async () => {
    const before = await datacenter.fleet.running();
    const lost = [...before].filter(([, [on]]) => on! < 10).map(([id]) => id);
    await datacenter.fleet.powerOff(0, 10);
    const after = await datacenter.fleet.running();
    expect([...after.keys()].sort()).toEqual([...before.keys()].filter((id) => !lost.includes(id)).sort());
    const id = [...after.keys()][0]!;
    expect((await docker.call<{State: {Status: string}}>('GET', `/containers/${id}/json`)).State.Status).toBe('running');
  });
});
