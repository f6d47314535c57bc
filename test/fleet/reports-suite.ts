/** What holds for reports over any moray: run over memory as a unit test, over Postgres as an integration test. */
import fc from 'fast-check';
import {systemClock} from '../../lib/base/clock';
import {CetusError} from '../../lib/base/errors';
import {silentLog} from '../../lib/base/log';
import {OutstandingTransitions} from '../../lib/fleet/outstanding';
import {type ContainerChange, ReportApplier} from '../../lib/fleet/reports';
import {ALL} from '../../lib/moray/filter';
import type {BatchOp, Moray} from '../../lib/moray/moray';
import type {Report, ReportBatch} from '../../lib/schema/agent';
import {BUCKETS} from '../../lib/schema/buckets';
import type {Container, ContainerObservation} from '../../lib/schema/container';
import type {DatacenterEvent, Exec} from '../../lib/schema/objects';
import {until} from '../harness/wait';
import {aContainer, anObservation} from './objects';

type Action = Extract<Report, {kind: 'container'}>['action'];

const attachment = {networkId: 'net1', networkName: 'bridge', endpointId: 'e', address: '172.17.0.2', prefixLength: 16, gateway: '172.17.0.1', mac: '02:42:ac:11:00:02', aliases: [], isDefaultRoute: true, internal: false};

function report(seq: number, action: Action, observation: Partial<ContainerObservation>, attributes: Record<string, string> = {}): Report {
  return {seq, at: `2026-01-01T00:00:0${seq % 10}.000000001Z`, kind: 'container', action, attributes, observation: anObservation(observation)};
}
const batch = (...reports: Report[]): ReportBatch => ({nodeId: 'n1', bootGeneration: 1, reports});

export function reportsSuite(makeMoray: () => Promise<Moray>): void {
  let moray: Moray;
  let applier: ReportApplier;
  let outstanding: OutstandingTransitions;
  let changes: ContainerChange[];
  let batches: BatchOp[][];
  let beforeBatch: (ops: BatchOp[]) => Promise<void>;
  let looks = 0;

  beforeEach(async () => {
    moray = await makeMoray();
    await moray.open(...Object.values(BUCKETS));
    batches = [];
    beforeBatch = async () => undefined;
    const watched: Moray = Object.assign(Object.create(moray) as Moray, {
      peek: (async (...args: Parameters<Moray['peek']>) => {
        const found = await moray.peek(...args);
        looks += 1;
        return found;
      }) as Moray['peek'],
      batch: async (ops: BatchOp[]) => { await beforeBatch(ops); batches.push(ops); return moray.batch(ops); },
    });
    outstanding = new OutstandingTransitions(systemClock);
    applier = new ReportApplier({moray: watched, log: silentLog(), clock: systemClock, outstanding});
    changes = [];
    applier.onContainerChange(change => changes.push(change));
  });
  afterEach(() => moray.close());

  const seed = (part: Partial<Container> = {}) => moray.put(BUCKETS.containers.name, part.id ?? 'c1', aContainer(part));
  const running = (part: Partial<Container> = {}) => seed({
    status: 'running', observation: anObservation({generation: 2, status: 'running', pid: 7, startedAt: '2026-01-01T00:00:00Z', containerId: part.id ?? 'c1'}),
    attachments: [attachment], publishedPorts: [{protocol: 'tcp', containerPort: 80, hostIp: '', hostPort: 8080}], ...part,
  });
  const container = async (id = 'c1') => (await moray.get<Container>(BUCKETS.containers.name, id)).value;
  const events = async () => (await moray.list<DatacenterEvent>(BUCKETS.events.name, ALL)).sort((a, b) => a.key.localeCompare(b.key)).map(s => s.value);

  test('volumes are mounted before each start and let go after each end, once for each report', async () => {
    const {spec} = aContainer();
    const mounts = [
      {type: 'volume' as const, volumeId: 'v', name: 'data', destination: '/data', readOnly: true, noCopy: false, anonymous: false}, {type: 'tmpfs' as const, destination: '/t', options: []},
    ];
    await seed({spec: {...spec, mounts}, status: 'created'});
    const both = batch(report(1, 'start', {generation: 2, status: 'running', pid: 7}), report(2, 'die', {generation: 3, status: 'exited'}));
    await applier.apply(both);
    await applier.apply(both);
    expect((await events()).map((e) => [e.type, e.action])).toEqual([['volume', 'mount'], ['container', 'start'], ['container', 'die'], ['volume', 'unmount']]);
    expect((await events())[0]).toMatchObject({actorId: 'data', attributes: {container: 'c1', driver: 'local', destination: '/data', propagation: '', 'read/write': 'false'}});
  });

  test('an exit is one commit: container, leases, events', async () => {
    await running();
    await moray.put(BUCKETS.addresses.name, 'net1/172.17.0.2', {networkId: 'net1', address: '172.17.0.2', account: 'default', containerId: 'c1', endpointId: 'e', mac: ''});
    await moray.put(BUCKETS.addresses.name, 'net1/172.17.0.3', {networkId: 'net1', address: '172.17.0.3', account: 'default', containerId: 'c2', endpointId: 'f', mac: ''});
    await moray.put(BUCKETS.ports.name, 'n1/tcp//8080', {nodeId: 'n1', protocol: 'tcp', hostIp: '', hostPort: 8080, account: 'default', containerId: 'c1'});
    expect(await applier.apply(batch(report(1, 'die', {generation: 3, status: 'exited', exitCode: 3, startedAt: '2026-01-01T00:00:00Z', finishedAt: '2026-01-01T00:00:02.5Z'})))).toEqual({ackedSeq: 1});
    expect(batches).toHaveLength(1);
    expect(await container()).toMatchObject({status: 'exited', attachments: [], publishedPorts: [], observation: {exitCode: 3}});
    expect(await moray.count(BUCKETS.ports.name, ALL)).toBe(0);
    expect((await moray.list(BUCKETS.addresses.name, ALL)).map(s => s.key)).toEqual(['net1/172.17.0.3']);
    expect(await events()).toEqual([
      {account: 'default', type: 'container', action: 'die', actorId: 'c1', timeNs: '1767225601000000001', attributes: {tier: 'front', image: 'busybox', name: 'web', exitCode: '3', execDuration: '2'}},
      {account: 'default', type: 'network', action: 'disconnect', actorId: 'net1', timeNs: '1767225601000000002', attributes: {container: 'c1', name: 'bridge', type: 'bridge'}},
    ]);
    expect(changes).toMatchObject([{container: {status: 'exited'}, actions: ['die']}]);
  });

  test('repeated reports change nothing, also with new ones behind them', async () => {
    await running();
    const first = report(1, 'kill', {generation: 2, status: 'running'}, {signal: 'SIGTERM'});
    const second = report(2, 'die', {generation: 3, status: 'exited'});
    await applier.apply(batch(first));
    await applier.apply(batch(first, second));
    const before = await events();
    const etag = (await moray.get(BUCKETS.containers.name, 'c1')).etag;
    expect(await applier.apply(batch(first, second, report(3, 'stop', {generation: 3, status: 'exited'})))).toEqual({ackedSeq: 3});
    expect(before.map(e => e.action)).toEqual(['kill', 'die', 'disconnect']);
    expect((await events()).map(e => e.action)).toEqual(['kill', 'die', 'disconnect', 'stop']);
    expect((await moray.get(BUCKETS.containers.name, 'c1')).etag).toBe(etag);
  });

  test('a job that wrote meanwhile is respected: the newer generation stays', async () => {
    await running();
    let interfered = false;
    beforeBatch = async () => {
      if (interfered) return;
      interfered = true;
      const stored = await moray.get<Container>(BUCKETS.containers.name, 'c1');
      await moray.put(BUCKETS.containers.name, 'c1', {...stored.value, status: 'running', observation: {...stored.value.observation, generation: 9}, labels: {written: 'by a job'}});
    };
    await applier.apply(batch(report(1, 'die', {generation: 3, status: 'exited'})));
    expect(await container()).toMatchObject({status: 'running', observation: {generation: 9}, labels: {written: 'by a job'}});
    expect((await events()).map(e => e.action)).toEqual(['die']);
  });

  test('a commit whose answer was lost is not written twice, and the listeners hear of it', async () => {
    await running();
    let lost = false;
    beforeBatch = async ops => {
      if (lost) return;
      lost = true;
      await moray.batch(ops);
    };
    expect(await applier.apply(batch(report(1, 'die', {generation: 3, status: 'exited'})))).toEqual({ackedSeq: 1});
    expect((await events()).map(e => e.action)).toEqual(['die', 'disconnect']);
    expect(changes).toMatchObject([{container: {status: 'exited'}, actions: ['die']}]);
  });

  test('what the store refuses for now is not acknowledged, and all before it is', async () => {
    await running();
    await running({id: 'c2', name: 'other', accountName: 'default/other'});
    beforeBatch = async ops => { if (JSON.stringify(ops).includes('"c2"')) throw new CetusError('unavailable', 'no primary'); };
    const reports = [report(4, 'die', {generation: 3, status: 'exited'}), report(5, 'die', {containerId: 'c2', generation: 3, status: 'exited'}), report(6, 'stop', {generation: 3, status: 'exited'})];
    expect(await applier.apply(batch(...reports))).toEqual({ackedSeq: 4});
    await expect(applier.apply(batch(reports[1]!))).rejects.toMatchObject({kind: 'unavailable'});
    beforeBatch = async () => undefined;
    expect(await applier.apply(batch(...reports.slice(1)))).toEqual({ackedSeq: 6});
    expect(await container('c2')).toMatchObject({status: 'exited'});
  });

  test('events alone of many containers share a write; what is known already is written no second time, and a refusal is nobody else\'s', async () => {
    const ids = Array.from({length: 12}, (_, n) => `c${n}`);
    for (const id of ids) await running({id, name: id, accountName: `default/${id}`});
    const said = (id: string, seq: number): Report => report(seq, 'kill', {containerId: id, generation: 2, status: 'running'}, {signal: 'SIGHUP'});
    await applier.apply(batch(said('c3', 3)));
    batches = [];
    looks = 0;
    // The first leaves when all the others are there.
    beforeBatch = async () => { await until('all to have been looked at', () => looks >= ids.length); };
    await Promise.all(ids.map((id, n) => applier.apply(batch(said(id, n)))));
    // Those that came behind the first; and the one with the known event, which is written again without it.
    expect(batches.length).toBeLessThanOrEqual(4);
    expect((await events()).map((e) => e.actorId).sort()).toEqual([...ids].sort());
    beforeBatch = async (ops) => { if (JSON.stringify(ops).includes('"c7"')) throw new CetusError('invalid', 'not this one'); };
    expect(await Promise.all(ids.map((id, n) => applier.apply(batch(said(id, n + 100)))))).toEqual(ids.map((_, n) => ({ackedSeq: n + 100})));
    expect(await events()).toHaveLength(2 * ids.length - 1);
    beforeBatch = async () => { throw new CetusError('unavailable', 'no primary'); };
    const told = await Promise.allSettled(ids.map((id, n) => applier.apply(batch(said(id, n + 200)))));
    expect(told.every((one) => one.status === 'rejected')).toBe(true);
  });

  test('reports of a container that is gone are acknowledged', async () => {
    expect(await applier.apply(batch(report(1, 'die', {generation: 3, status: 'exited'})))).toEqual({ackedSeq: 1});
    expect(await events()).toEqual([]);
  });

  test('a former node\'s late report makes an event and no state', async () => {
    await running({nodeId: 'n2'});
    await applier.apply(batch(report(1, 'die', {generation: 30, status: 'exited'})));
    expect(await container()).toMatchObject({status: 'running'});
    expect((await events()).map(e => e.action)).toEqual(['die']);
  });

  test('an exec\'s end is written once', async () => {
    await running();
    const exec: Exec = {id: 'x1', account: 'default', containerId: 'c1', nodeId: 'n1', config: {Cmd: ['true']} as Exec['config'], running: true, exitCode: null, pid: 9, createdAt: '2026-01-01T00:00:00Z'};
    await moray.put(BUCKETS.execs.name, 'x1', exec);
    const end: Report = {seq: 1, at: '2026-01-01T00:00:01Z', kind: 'exec', execId: 'x1', containerId: 'c1', exitCode: 4};
    await applier.apply(batch(end));
    await applier.apply(batch(end));
    expect((await moray.get<Exec>(BUCKETS.execs.name, 'x1')).value).toMatchObject({running: false, exitCode: 4});
    expect(await events()).toMatchObject([{action: 'exec_die', actorId: 'c1', attributes: {execID: 'x1', exitCode: '4'}}]);
  });

  test('a start that a job of this process asked for is left to the job; its event is not', async () => {
    await seed();
    await outstanding.track({kind: 'container.start', containerId: 'c1', networks: [], attachments: [], ports: []}, Promise.resolve({observation: anObservation({generation: 2, status: 'running'})}));
    await applier.apply(batch(report(1, 'start', {generation: 2, status: 'running'})));
    expect(await container()).toMatchObject({status: 'created'});
    expect((await events()).map(e => e.action)).toEqual(['start']);
    await applier.apply(batch(report(2, 'restart', {generation: 4, status: 'running'})));
    expect(await container()).toMatchObject({status: 'running', observation: {generation: 4}});
  });

  test('however reports are cut into requests, repeated and interleaved, the end is the same', async () => {
    const story = (id: string, first: number): Report[] => [
      report(first + 1, 'start', {containerId: id, generation: 2, status: 'running'}), report(first + 2, 'oom', {containerId: id, generation: 3, status: 'running', oomKilled: true}),
      report(first + 3, 'die', {containerId: id, generation: 4, status: 'restarting', exitCode: 1}), report(first + 4, 'start', {containerId: id, generation: 5, status: 'running'}),
      report(first + 5, 'kill', {containerId: id, generation: 5, status: 'running'}, {signal: 'SIGKILL'}), report(first + 6, 'die', {containerId: id, generation: 6, status: 'exited', exitCode: 137}),
    ];
    let run = 0;
    await fc.assert(fc.asyncProperty(fc.array(fc.tuple(fc.integer({min: 0, max: 5}), fc.integer({min: 1, max: 6})), {maxLength: 6}), async cuts => {
      const id = `p${run += 1}`;
      await seed({id, name: id, accountName: `default/${id}`, observation: anObservation({containerId: id})});
      const reports = story(id, run * 10);
      // Requests that overlap and repeat, but as an agent sends them: none skips ahead of what was acknowledged.
      let acked = 0;
      for (const [back, length] of cuts) {
        const from = Math.max(0, acked - back);
        const {ackedSeq} = await applier.apply(batch(...reports.slice(from, from + length)));
        acked = Math.max(acked, ackedSeq);
      }
      await applier.apply(batch(...reports));
      expect(await container(id)).toMatchObject({status: 'exited', observation: {generation: 6, exitCode: 137}});
      expect((await events()).filter(e => e.actorId === id).map(e => e.action)).toEqual(['start', 'oom', 'die', 'start', 'kill', 'die']);
    }), {numRuns: 40});
  });
}
