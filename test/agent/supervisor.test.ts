import {existsSync, readFileSync} from 'node:fs';
import {CetusError} from '../../lib/base/errors';
import {TestNode, testImages, until} from './node';

const NETWORK = {id: 'n1', account: 'a', name: 'front', bridgeName: 'ce-1', subnet: '172.18.0.0/16', gateway: '172.18.0.1', internal: false, options: {}};
const ATTACHMENT = {
  networkId: 'n1', networkName: 'front', endpointId: 'e1', address: '172.18.0.2', prefixLength: 16, gateway: '172.18.0.1', mac: '02:42:ac:12:00:02', aliases: [], isDefaultRoute: true, internal: false,
};

describe('a container on a node', () => {
  let node: TestNode;
  beforeEach(async () => {
    node = await new TestNode().boot();
    await node.listen();
  });
  afterEach(() => node.end());

  const observation = (id: string) => node.agent.supervisor.unit(id).observation;

  it('runs, logs, ends and is removed without leftovers', async () => {
    await node.create('c1', ['sh', '-c', 'echo hello; echo bad >&2; exit 3']);
    await node.start('c1');
    await until('exited', () => node.status('c1') === 'exited');
    expect(observation('c1')).toMatchObject({exitCode: 3, pid: 0, restartCount: 0});
    const log = readFileSync(`${node.dataDir}/containers/c1/c1-json.log`, 'utf8').trim().split('\n').map((line) => JSON.parse(line) as {log: string; stream: string});
    expect(log.filter((e) => e.stream === 'stdout').map((e) => e.log)).toEqual(['hello\n']);
    expect(log.filter((e) => e.stream === 'stderr').map((e) => e.log)).toEqual(['bad\n']);
    await node.agent.settled();
    expect(node.sink.actions()).toEqual(['start', 'die']);
    expect(node.sink.reports_[1]).toMatchObject({attributes: {exitCode: '3'}});
    await node.task({kind: 'container.remove', containerId: 'c1', force: false});
    await node.task({kind: 'container.remove', containerId: 'c1', force: false});
    await node.agent.supervisor.settled();
    expect(await node.runtime.list()).toEqual([]);
    expect(await node.network.sandboxes()).toEqual([]);
    expect(existsSync(`${node.dataDir}/containers/c1`)).toBe(false);
  });

  it('takes nothing for removed because the agent goes', async () => {
    await node.create('c1', ['sleep', '1000']);
    await node.agent.supervisor.suspend();
    await expect(node.task({kind: 'container.remove', containerId: 'c1', force: true})).rejects.toMatchObject({kind: 'unavailable'});
    await expect(node.start('c1')).rejects.toMatchObject({kind: 'unavailable'});
    await node.agent.close();
    await node.boot();
    expect(node.status('c1')).toBe('created');
  });

  describe('a commit', () => {
    const commit = (pause: boolean) => node.task({kind: 'image.commit', containerId: 'c1', account: 'default', created: '', pause, author: '', comment: '', config: {}, containerConfig: {}}, 'commit-job');
    let seen: string[];
    let make: jest.SpyInstance;
    beforeEach(async () => {
      seen = [];
      make = jest.spyOn(testImages, 'commit').mockImplementation(async () => {
        seen.push(node.status('c1'));
        return {imageId: 'sha256:9'} as never;
      });
      await node.create('c1', ['sleep', '1000']);
      await node.start('c1');
    });
    afterEach(() => make.mockRestore());

    it('freezes what runs for as long as it lasts, also where it fails, and only if asked', async () => {
      expect(await commit(true)).toMatchObject({image: {imageId: 'sha256:9'}, observation: {status: 'running'}});
      await commit(false);
      make.mockRejectedValueOnce(new CetusError('noSpace', 'full'));
      await expect(commit(true)).rejects.toMatchObject({kind: 'noSpace'});
      expect(seen).toEqual(['paused', 'running']);
      expect(node.status('c1')).toBe('running');
    });

    it('leaves one frozen that a person froze', async () => {
      await node.task({kind: 'container.pause', containerId: 'c1'});
      await commit(true);
      expect(node.status('c1')).toBe('paused');
    });

    it('that died with the agent holds nothing frozen', async () => {
      make.mockImplementationOnce(() => new Promise(() => undefined));
      void commit(true).catch(() => undefined);
      await until('frozen', () => node.status('c1') === 'paused');
      await node.agent.close();
      await node.boot();
      expect(node.status('c1')).toBe('running');
      expect((await node.runtime.state('c1')).status).toBe('running');
    });
  });

  it('stops with the stop signal, and with SIGKILL after the timeout', async () => {
    await node.create('kind', ['sh', '-c', 'trap "exit 7" TERM; sleep 1000']);
    await node.create('deaf', ['sleep', '1000']);
    await Promise.all([node.start('kind'), node.start('deaf')]);
    await until('both run', () => node.status('kind') === 'running' && node.status('deaf') === 'running');
    const kind = await node.task({kind: 'container.stop', containerId: 'kind', timeoutSeconds: 10, signal: null});
    expect(kind.observation).toMatchObject({status: 'exited', exitCode: 7, stoppedByUser: true});
    const deaf = await node.task({kind: 'container.stop', containerId: 'deaf', timeoutSeconds: 0, signal: null});
    expect(deaf.observation).toMatchObject({status: 'exited', exitCode: 137});
    await node.agent.settled();
    const of = (id: string) => node.sink.reports_.filter((r) => r.kind === 'container' && r.observation.containerId === id).map((r) => r.kind === 'container' && `${r.action}${r.attributes.signal ?? ''}`);
    expect(of('kind')).toEqual(['start', 'kill15', 'die', 'stop']);
    expect(of('deaf')).toEqual(['start', 'kill15', 'kill9', 'die', 'stop']);
    // Stopping a stopped one is a success without a word.
    await node.task({kind: 'container.stop', containerId: 'deaf', timeoutSeconds: 0, signal: null});
    expect(of('deaf')).toHaveLength(5);
  });

  it.each(['before', 'after'])('is known to have been out of memory, though the word of it comes %s the exit\'s', async (order) => {
    await node.create('c1', ['sleep', '1000']);
    await node.start('c1');
    if (order === 'after') {
      await node.runtime.kill('c1', '', 9);
      await until('exited', () => node.status('c1') === 'exited');
    }
    node.runtime.oom('c1');
    await until('exited, and why', () => node.status('c1') === 'exited' && observation('c1').oomKilled);
    expect(observation('c1').exitCode).toBe(137);
    await node.agent.settled();
    expect(node.sink.actions()).toEqual(order === 'after' ? ['start', 'die', 'oom'] : ['start', 'oom', 'die']);
    // Its next life knows nothing of it.
    await node.start('c1');
    expect(observation('c1').oomKilled).toBe(false);
  });

  it('finds an exit of which no word came', async () => {
    await node.create('c1', ['sleep', '1000']);
    await node.start('c1');
    // As if the runtime had died with the event on its way.
    const unit = node.agent.supervisor.unit('c1');
    unit.exited = () => Promise.resolve();
    await node.task({kind: 'container.remove', containerId: 'c1', force: true});
    await node.agent.supervisor.settled();
    expect(await node.runtime.list()).toEqual([]);
  });

  it('ends a process whose start was not answered, so that the next try does not meet it', async () => {
    await node.create('c1', ['sleep', '1000']);
    // The runtime dies under the call: the process runs, the answer is lost.
    const start = node.runtime.startTask.bind(node.runtime);
    node.runtime.startTask = async (id) => {
      await start(id);
      node.runtime.startTask = start;
      throw new CetusError('unavailable', 'containerd: the connection dropped');
    };
    await expect(node.start('c1', 'job-a')).rejects.toMatchObject({kind: 'unavailable'});
    expect((await node.runtime.state('c1')).status).toBe('none');
    expect(await node.network.sandboxes()).toEqual([]);
    // The runtime's return makes the agent look at everything.
    await node.agent.supervisor.reconcileAll();
    expect(node.status('c1')).toBe('created');
    await node.start('c1', 'job-a');
    expect(observation('c1')).toMatchObject({status: 'running', error: ''});
    expect(await node.runtime.state('c1')).toMatchObject({status: 'running', pid: observation('c1').pid});
  });

  it('refuses in the Engine\'s words', async () => {
    await node.create('c1', ['sleep', '1000']);
    const refusal = async (promise: Promise<unknown>): Promise<string> => promise.then(() => 'done', (err: CetusError) => `${err.kind}: ${err.message}`);
    expect(await refusal(node.task({kind: 'container.kill', containerId: 'c1', signal: 'KILL'}))).toBe('conflict: container c1 is not running');
    expect(await refusal(node.task({kind: 'container.pause', containerId: 'c1'}))).toBe('conflict: container c1 is not running');
    await node.start('c1', 'job-a');
    expect(await refusal(node.start('c1', 'job-b'))).toBe('notModified: container c1 is already running');
    expect(await refusal(node.start('c1', 'job-a'))).toBe('done');
    expect(await refusal(node.task({kind: 'container.unpause', containerId: 'c1'}))).toBe('conflict: container c1 is not paused');
    expect(await refusal(node.task({kind: 'container.remove', containerId: 'c1', force: false})))
      .toBe('conflict: cannot remove container "/c1": container is running: stop the container before removing or force remove');
    await node.task({kind: 'container.pause', containerId: 'c1'});
    expect(observation('c1').status).toBe('paused');
    expect(await refusal(node.start('c1'))).toBe('conflict: cannot start a paused container, try unpause instead');
    await node.task({kind: 'container.remove', containerId: 'c1', force: true});
    expect(await refusal(node.start('c1'))).toBe('notFound: No such container: c1');
  });

  it('answers a create before its snapshot is made, and makes at the start what is missing', async () => {
    const {runtime} = node;
    const {create} = runtime;
    let allow!: () => void;
    const allowed = new Promise<void>((resolve) => (allow = resolve));
    runtime.create = async (request) => {
      await allowed;
      return create.call(runtime, request);
    };
    await node.create('slow', ['true']);
    expect(await runtime.list()).toEqual([]);
    const started = node.start('slow');
    const removed = node.create('gone', ['true']).then(() => node.task({kind: 'container.remove', containerId: 'gone', force: false}));
    await removed;
    allow();
    await started;
    await until('exited', () => node.status('slow') === 'exited');

    let refusals = 2;
    runtime.create = async (request) => {
      if ((refusals -= 1) >= 0) throw new CetusError('unavailable', 'not now');
      return create.call(runtime, request);
    };
    await node.create('late', ['true']);
    await node.agent.supervisor.settled();
    expect((await runtime.list()).map(({id}) => id)).toEqual(['slow']);
    // Also one whose agent died in between.
    await node.create('next', ['true']);
    await node.agent.close();
    for (const {id} of await runtime.list()) if (id === 'next') await runtime.remove(id);
    await node.boot();
    for (const id of ['late', 'next']) {
      await node.start(id);
      await until('exited', () => node.status(id) === 'exited');
    }
    for (const id of ['slow', 'late', 'next']) await node.task({kind: 'container.remove', containerId: id, force: false});
    await node.agent.supervisor.settled();
    expect(await runtime.list()).toEqual([]);
  });

  it('answers a removal once nothing can stop it, and takes the remains away behind the answer', async () => {
    const {runtime} = node;
    let allow!: () => void;
    const allowed = new Promise<void>((resolve) => (allow = resolve));
    const {deleteTask, remove} = runtime;
    runtime.deleteTask = async (id) => {
      await allowed;
      return deleteTask.call(runtime, id);
    };
    let refusals = 2;
    runtime.remove = async (id) => {
      if ((refusals -= 1) >= 0) throw new CetusError('unavailable', 'not now');
      return remove.call(runtime, id);
    };
    await node.create('c1', ['true']);
    await node.start('c1');
    await until('exited', () => node.status('c1') === 'exited');
    // Neither the ended task's removal nor the snapshot's is waited for.
    await node.task({kind: 'container.remove', containerId: 'c1', force: false});
    expect(() => node.status('c1')).toThrow('No such container: c1');
    expect(await runtime.list()).toHaveLength(1);
    await node.task({kind: 'container.remove', containerId: 'c1', force: false});
    allow();
    await node.agent.supervisor.settled();
    expect(refusals).toBe(-1);
    expect(await runtime.list()).toEqual([]);
    expect(existsSync(`${node.dataDir}/containers/c1`)).toBe(false);
  });

  it.each(['stop', 'remove'] as const)('answers a %s once the published ports are free for anybody', async (how) => {
    const port = {protocol: 'tcp' as const, containerPort: 80, hostIp: '', hostPort: 8080};
    const {removeSandbox} = node.network;
    node.network.removeSandbox = async (id) => {
      await new Promise((resolve) => setTimeout(resolve, 30));
      await removeSandbox.call(node.network, id);
    };
    await node.create('c1', ['sleep', '1000'], {spec: {networkMode: 'networks'}});
    await node.task({kind: 'container.start', containerId: 'c1', networks: [NETWORK], attachments: [ATTACHMENT], ports: [port]});
    expect(await node.network.publishedPorts()).toEqual([port]);
    await node.task(how === 'stop' ? {kind: 'container.stop', containerId: 'c1', timeoutSeconds: 0, signal: null} : {kind: 'container.remove', containerId: 'c1', force: true});
    expect(await node.network.publishedPorts()).toEqual([]);
  });

  it('finishes in its next life a removal that it had answered', async () => {
    const {runtime} = node;
    const {remove} = runtime;
    runtime.remove = () => Promise.reject(new CetusError('unavailable', 'not in this life'));
    await node.create('c1', ['true']);
    await node.task({kind: 'container.remove', containerId: 'c1', force: false});
    await node.agent.close();
    expect(existsSync(`${node.dataDir}/containers/c1`)).toBe(true);
    runtime.remove = remove;
    await node.boot();
    expect(() => node.status('c1')).toThrow('No such container: c1');
    expect(await runtime.list()).toEqual([]);
    expect(existsSync(`${node.dataDir}/containers/c1`)).toBe(false);
  });

  it('says why a process cannot be started, with the shell\'s exit codes', async () => {
    await node.create('c1', ['nonsense']);
    await expect(node.start('c1')).rejects.toThrow('executable file not found in $PATH');
    expect(observation('c1')).toMatchObject({status: 'created', exitCode: 127});
    expect(observation('c1').error).toContain('failed to create task for container: failed to create shim task');
    expect(await node.network.sandboxes()).toEqual([]);
  });

  it('restarts as the policy says, and not after a person\'s stop', async () => {
    await node.create('c1', ['false'], {hostConfig: {RestartPolicy: {Name: 'on-failure', MaximumRetryCount: 2}}});
    await node.start('c1');
    await until('given up', () => node.status('c1') === 'exited');
    expect(observation('c1')).toMatchObject({restartCount: 2, exitCode: 1});
    await node.agent.settled();
    expect(node.sink.actions()).toEqual(['start', 'die', 'start', 'die', 'start', 'die']);
    const statuses = node.sink.reports_.map((r) => r.kind === 'container' && r.observation.status);
    expect(statuses).toEqual(['running', 'restarting', 'running', 'restarting', 'running', 'exited']);

    await node.create('c2', ['sleep', '1000'], {hostConfig: {RestartPolicy: {Name: 'always'}}});
    await node.start('c2');
    const {pid} = observation('c2');
    await node.runtime.kill('c2', '', 9);
    await until('back', () => node.status('c2') === 'running' && observation('c2').pid !== pid);
    await node.task({kind: 'container.stop', containerId: 'c2', timeoutSeconds: 0, signal: null});
    expect(observation('c2').status).toBe('exited');
  });

  it('survives its agent: output, exit code and restart policy go on', async () => {
    await node.create('c1', ['sh', '-c', 'echo one; sleep 0.3; echo two; exit 4']);
    await node.create('c2', ['sleep', '1000']);
    await node.start('c1');
    await node.start('c2');
    const {pid} = observation('c2');
    await node.agent.close();
    await until('ended alone', async () => (await node.runtime.state('c1')).status === 'stopped');
    await node.boot();
    await node.listen();
    expect(observation('c1')).toMatchObject({status: 'exited', exitCode: 4});
    expect(observation('c2')).toMatchObject({status: 'running', pid});
    expect(readFileSync(`${node.dataDir}/containers/c1/c1-json.log`, 'utf8').match(/"log":"\w+/g)).toEqual(['"log":"one', '"log":"two']);
    await node.agent.settled();
    expect(node.sink.reports_.map((r) => r.seq)).toEqual(node.sink.reports_.map((_, i) => i + 1));
    expect(node.sink.actions().sort()).toEqual(['die', 'start', 'start']);
  });

  it('brings containers back after a reboot as their policies say', async () => {
    const policy = (Name: 'always' | 'unless-stopped' | 'no') => ({hostConfig: {RestartPolicy: {Name}}});
    await node.create('always', ['sleep', '1000'], policy('always'));
    await node.create('unless', ['sleep', '1000'], policy('unless-stopped'));
    await node.create('stopped', ['sleep', '1000'], policy('unless-stopped'));
    await node.create('no', ['sleep', '1000'], policy('no'));
    for (const id of ['always', 'unless', 'stopped', 'no']) await node.start(id);
    await node.task({kind: 'container.stop', containerId: 'stopped', timeoutSeconds: 0, signal: null});
    const generation = observation('always').generation;
    await node.agent.close();
    for (const id of ['always', 'unless', 'no']) {
      await node.runtime.kill(id, '', 9);
      await node.runtime.deleteTask(id);
    }
    await node.boot('boot-2');
    await node.listen();
    await until('back', () => node.status('always') === 'running' && node.status('unless') === 'running');
    expect(observation('no')).toMatchObject({status: 'exited', exitCode: 255});
    expect(observation('stopped').status).toBe('exited');
    expect(observation('always').generation).toBeGreaterThan(generation + 1000);
  });

  it('takes away what belongs to nobody', async () => {
    await node.agent.close();
    await node.runtime.create({id: 'orphan', parentSnapshot: '', labels: {}});
    await node.runtime.createTask('orphan', {process: {args: ['sleep', '1000']}}, {stdin: false, terminal: false});
    await node.runtime.startTask('orphan');
    await node.network.createEmptySandbox('ghost');
    await node.boot();
    expect(await node.runtime.list()).toEqual([]);
    expect(await node.network.sandboxes()).toEqual([]);
  });

  it('watches health and tells of changes', async () => {
    const ms = 1e6;
    await node.create('c1', ['sleep', '1000'], {config: {Healthcheck: {Test: ['CMD', 'false'], Interval: 5 * ms, Timeout: 1000 * ms, Retries: 2}}});
    await node.start('c1');
    expect(observation('c1').health?.status).toBe('starting');
    await until('unhealthy', () => observation('c1').health?.status === 'unhealthy');
    await until('five probes', () => observation('c1').health!.log.length === 5);
    expect(observation('c1').health!.failingStreak).toBeGreaterThanOrEqual(2);
    await node.agent.settled();
    expect(node.sink.actions()).toEqual(['start', 'health_status']);
  });
});
