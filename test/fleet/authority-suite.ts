/** Joining, staying and leaving, over real TLS; against any store. */
import {spawnSync} from 'node:child_process';
import {chmodSync, readdirSync, readFileSync, statSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import net from 'node:net';
import {text} from 'node:stream/consumers';
import tls from 'node:tls';
import {Pool} from 'undici';
import {enroll, meet} from '../../lib/agent/identity/enroll';
import {currentOf} from '../../lib/base/credentials';
import {mustBe} from '../../lib/base/peer';
import {makeKey} from '../../lib/base/x509';
import {FleetAuthority} from '../../lib/fleet/authority/authority';
import {makeKeyFile} from '../../lib/fleet/authority/seal';
import {revocationWrites} from '../../lib/fleet/authority/revocations';
import {silentLog} from '../../lib/base/log';
import type {Moray} from '../../lib/moray/moray';
import {BUCKETS} from '../../lib/schema/buckets';
import {parseJoinToken} from '../../lib/schema/join-token';
import type {Node} from '../../lib/schema/node';
import {DAY_MS, type Endpoint, FleetWorld, type JoinedNode, SteppedClock, until} from './authority-world';
import {aContainer, someFacts} from './objects';

interface Material { ca: string; cert?: string; key?: string }

export function authoritySuite(makeMoray: () => Promise<Moray>): void {
  let world: FleetWorld;
  afterEach(async () => world.end());
  const fresh = async (clock?: SteppedClock): Promise<FleetWorld> => (world = new FleetWorld(await makeMoray(), clock));

  /** A call to `url` with whatever certificate. */
  const call = async (url: string, path: string, material: Material, body: unknown = {}, method: 'POST' | 'GET' = 'POST'): Promise<{status: number; kind?: string; message?: string}> => {
    const pool = new Pool(url, {connect: {...material, checkServerIdentity: () => undefined}});
    try {
      const answer = await pool.request({method, path, ...(method === 'POST' ? {body: JSON.stringify(body), headers: {'content-type': 'application/json'}} : {})});
      return {status: answer.statusCode, ...(await answer.body.json().catch(() => ({})) as object)};
    } finally {
      await pool.destroy();
    }
  };
  const lives = (endpoint: Endpoint, id: string): Promise<void> => until(`${id} lives`, async () => (await endpoint.fleet.nodes()).some((n) => n.id === id && n.liveness === 'alive'));
  const remove = async (id: string): Promise<void> => {
    const {writes} = await revocationWrites(world.moray, world.clock, id, 'removed');
    await world.moray.batch([...writes, {op: 'delete', bucket: BUCKETS.nodes.name, key: id}]);
  };

  describe('joining', () => {
    test('with a token, and from then on by certificates, both ways', async () => {
      await fresh();
      const endpoint = await world.endpoint();
      const node = await world.node(endpoint, 'node-1');
      await lives(endpoint, 'node-1');
      expect(await (await endpoint.fleet.agent('node-1')).info()).toMatchObject({nodeId: 'node-1', agentUrl: node.agentUrl});
      expect((await world.moray.get<Node>(BUCKETS.nodes.name, 'node-1')).value.labels).toEqual({from: 'token'});
      for (const file of ['node.pem', 'authority.pem']) expect(statSync(join(node.files.directory, file)).mode & 0o777).toBe(0o600);
      const stored = JSON.stringify(await Promise.all(['authority', 'tokens', 'identities'].map((bucket) => world.moray.list(bucket, '(&)'))));
      expect(stored).not.toContain('PRIVATE KEY');
    });

    test('a container\'s connection to the Docker API is half-open: what is answered behind the client\'s end arrives', async () => {
      await fresh();
      const endpoint = await world.endpoint();
      const node = await world.node(endpoint, 'node-1');
      await world.moray.put(BUCKETS.containers.name, 'c1', aContainer({account: 'jill', nodeId: 'node-1'}));
      endpoint.fleet.onDocker((socket, account) => {
        let said = '';
        socket.on('data', (more: Buffer) => { said += more.toString(); }).once('end', () => setImmediate(() => socket.end(`${account}: ${said}`)));
      });
      const stream = await node.link.docker!('c1');
      stream.end('all that I have to say');
      expect(await text(stream)).toBe('jill: all that I have to say');
    });

    test('one token makes one node, also where several machines show it at once; and the one that won may ask again', async () => {
      await fresh();
      const [a, b] = [await world.endpoint('a'), await world.endpoint('b')];
      const {token} = await a.authority.tokens.create({});
      const machines = Array.from({length: 6}, (_, i) => `node-${i}`);
      const outcomes = await Promise.allSettled(machines.map((id, i) => world.enrol((i % 2 ? a : b).url, token, id)));
      const won = machines.filter((_, i) => outcomes[i].status === 'fulfilled');
      expect(won).toHaveLength(1);
      for (const outcome of outcomes) if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({kind: 'unauthorized', message: expect.stringContaining('was used')});
      expect(await world.moray.count('identities', '(&)')).toBe(1);
    });

    test('a machine that died before it had its certificate on disk gets the same one again, and nobody else does', async () => {
      await fresh();
      const endpoint = await world.endpoint();
      const {token} = await endpoint.authority.tokens.create({ttlMs: 60_000});
      const files = world.files('node-1');
      const key = files.pendingKey();
      const met = await meet(endpoint.url, parseJoinToken(token).fingerprint);
      const ask = (k: string, nodeId = 'node-1') => enroll(endpoint.url, met, k, {token, nodeId, name: nodeId, addresses: []});
      const first = await ask(key);
      // It comes back much later than the token was good.
      world.clock.offsetMs += 3_600_000;
      expect(await ask(files.pendingKey())).toEqual(first);
      await expect(ask(makeKey())).rejects.toMatchObject({kind: 'unauthorized', message: expect.stringContaining('was used')});
      await expect(ask(key, 'node-2')).rejects.toMatchObject({kind: 'unauthorized', message: expect.stringContaining('was used')});
      await world.enrol(endpoint.url, token, 'node-1', files);
      expect(files.load()!.cert).toBe(first.certificate);
    });

    test('the id of a member is nobody else\'s, whatever token is shown; its own key proves that it is itself', async () => {
      await fresh();
      const endpoint = await world.endpoint();
      const node = await world.node(endpoint, 'node-1');
      const {token} = await endpoint.authority.tokens.create({});
      await expect(world.enrol(endpoint.url, token, 'node-1', world.files('thief'), 'thief')).rejects.toMatchObject({kind: 'conflict', message: expect.stringContaining('another key')});
      const claim = async (): Promise<unknown> => (await world.moray.get<Node>(BUCKETS.nodes.name, 'node-1')).value.claim;
      expect(await claim()).toMatchObject({nodeId: 'node-1', message: expect.stringContaining('another key')});
      await expect(world.enrol(endpoint.url, token, 'node-2', world.files('node-2'), 'node-1')).rejects.toMatchObject({kind: 'conflict', message: expect.stringContaining('another node is called node-1')});
      expect(await claim()).toMatchObject({nodeId: 'node-2', message: expect.stringContaining('another node is called node-1')});
      await world.moray.put(BUCKETS.nodes.name, 'old', {...(await world.moray.get<Node>(BUCKETS.nodes.name, 'node-1')).value, id: 'old', name: 'old'});
      await expect(world.enrol(endpoint.url, token, 'old')).rejects.toMatchObject({kind: 'conflict', message: expect.stringContaining('without a certificate')});
      // None of them has spent the token.
      const met = await meet(endpoint.url, parseJoinToken(token).fingerprint);
      await expect(enroll(endpoint.url, met, node.files.load()!.key, {token, nodeId: 'node-1', name: 'node-1', addresses: []})).resolves.toMatchObject({certificate: expect.stringContaining('CERTIFICATE')});
    });

    test('tokens that expired, were taken back, were never made, or are another datacenter\'s are told apart', async () => {
      await fresh();
      const endpoint = await world.endpoint();
      const {token, id} = await endpoint.authority.tokens.create({ttlMs: 60_000});
      const other = {...parseJoinToken(token), fingerprint: 'A'.repeat(43)};
      const elsewhere = `cetus1.${other.id}.${other.secret}.${other.fingerprint}`;
      await expect(world.enrol(endpoint.url, elsewhere, 'n')).rejects.toMatchObject({kind: 'forbidden', message: expect.stringContaining('is not the one that the token is for')});
      const unknown = token.replace(other.secret, 'a'.repeat(32));
      await expect(world.enrol(endpoint.url, unknown, 'n')).rejects.toMatchObject({kind: 'unauthorized', message: expect.stringContaining('unknown join token')});
      world.clock.offsetMs += 61_000;
      await expect(world.enrol(endpoint.url, token, 'n')).rejects.toMatchObject({kind: 'unauthorized', message: expect.stringContaining('expired at')});
      await endpoint.authority.tokens.remove(id);
      await expect(world.enrol(endpoint.url, token, 'n')).rejects.toMatchObject({message: expect.stringContaining('unknown join token')});
      await expect(endpoint.authority.tokens.remove(id)).rejects.toMatchObject({kind: 'notFound'});
    });

    test('who is not the token\'s datacenter is not told the token', async () => {
      await fresh();
      const endpoint = await world.endpoint();
      const {token} = await endpoint.authority.tokens.create({});
      const stranger = new FleetWorld(await makeMoray());
      try {
        const foreign = await stranger.endpoint();
        const heard: Buffer[] = [];
        const impostor = tls.createServer({...currentOf(foreign.authority.credentials)}, (socket) => socket.on('data', (bytes: Buffer) => heard.push(bytes)).on('error', () => undefined)).listen(0, '127.0.0.1');
        await new Promise((resolve) => impostor.once('listening', resolve));
        const {port} = impostor.address() as net.AddressInfo;
        await expect(world.enrol(`https://127.0.0.1:${port}`, token, 'n')).rejects.toMatchObject({kind: 'forbidden', message: expect.stringContaining('The token was not told to it')});
        // One that sends our authority's certificate along, which is no secret, cannot sign with it.
        impostor.setSecureContext({cert: foreign.authority.credentials.current.cert + endpoint.authority.certificate, key: foreign.authority.credentials.current.key});
        await expect(world.enrol(`https://127.0.0.1:${port}`, token, 'n')).rejects.toBeDefined();
        expect(Buffer.concat(heard).toString()).not.toContain(parseJoinToken(token).secret);
        await new Promise((resolve) => impostor.close(resolve));
      } finally {
        await stranger.end();
      }
    });

    test('nobody answers: it is said where', async () => {
      await fresh();
      await expect(meet('https://127.0.0.1:1', 'A'.repeat(43))).rejects.toMatchObject({kind: 'unavailable', message: expect.stringContaining('no control plane at https://127.0.0.1:1')});
      await expect(async () => meet('http://127.0.0.1:1', 'x')).rejects.toMatchObject({kind: 'invalid'});
    });
  });

  describe('who is listened to', () => {
    let endpoint: Endpoint;
    let one: JoinedNode;
    let two: JoinedNode;
    beforeEach(async () => {
      await fresh();
      endpoint = await world.endpoint();
      [one, two] = [await world.node(endpoint, 'node-1'), await world.node(endpoint, 'node-2')];
      await lives(endpoint, 'node-1');
      await lives(endpoint, 'node-2');
    });
    const beat = (nodeId: string): object => ({nodeId, bootGeneration: 1, reportSeq: 0, runningContainers: 0});

    test('a node speaks for itself alone', async () => {
      const mine = one.identity.credentials.current;
      expect(await call(endpoint.url, '/v1/heartbeat', mine, beat('node-1'))).toMatchObject({status: 200});
      for (const [path, body] of [['/v1/heartbeat', beat('node-2')], ['/v1/reports', {nodeId: 'node-2', bootGeneration: 1, reports: []}], ['/v1/join', someFacts({nodeId: 'node-2', name: 'x'})], ['/v1/renew', {nodeId: 'node-2', request: 'x'}], ['/v1/assignments', {nodeId: 'node-2', bootGeneration: 1, containers: []}]] as const)
        expect(await call(endpoint.url, path, mine, body)).toMatchObject({status: 403, message: expect.stringContaining('may not speak for node node-2')});
      await expect(one.link.renew({nodeId: 'node-1', request: 'x'})).rejects.toMatchObject({kind: 'invalid'});
    });

    test('a connection to the Docker API is for a container of its own', async () => {
      await world.moray.put(BUCKETS.containers.name, 'c1', aContainer({id: 'c1', nodeId: 'node-2', node: 'node-2'}));
      endpoint.fleet.onDocker((socket) => socket.end('welcome'));
      await expect(one.link.docker!('c1')).rejects.toMatchObject({kind: 'notFound'});
      const stream = await two.link.docker!('c1');
      let text = '';
      for await (const bytes of stream) text += String(bytes);
      expect(text).toBe('welcome');
    });

    test('without a certificate, with one of one\'s own making, or an endpoint\'s, nothing is answered', async () => {
      const ca = endpoint.authority.certificate;
      const forged = join(world.dir, 'forged');
      expect(spawnSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', '/OU=node/CN=node-1', '-keyout', `${forged}.key`, '-out', `${forged}.pem`]).status).toBe(0);
      const [cert, key] = [readFileSync(`${forged}.pem`, 'utf8'), readFileSync(`${forged}.key`, 'utf8')];
      for (const path of ['/v1/heartbeat', '/v1/join', '/v1/reports', '/v1/renew']) {
        expect(await call(endpoint.url, path, {ca}, beat('node-1'))).toMatchObject({status: 401, kind: 'unauthorized'});
        expect(await call(endpoint.url, path, {ca, cert, key}, beat('node-1'))).toMatchObject({status: 401, message: expect.stringContaining('authority')});
      }
      expect(await call(endpoint.url, '/v1/heartbeat', endpoint.authority.credentials.current, beat('node-1'))).toMatchObject({status: 403});
      expect(await call(endpoint.url, '/v1/enroll', {ca}, {token: 'x'.repeat(20_000), nodeId: 'n', name: 'n', request: 'x'})).toMatchObject({status: 400});
      // An agent's server ends the handshake of whoever has no certificate of the authority.
      await expect(call(one.agentUrl, '/v1/info', {ca}, undefined, 'GET')).rejects.toBeDefined();
      await expect(call(one.agentUrl, '/v1/info', {ca, cert, key}, undefined, 'GET')).rejects.toBeDefined();
    });

    test('a session that was begun without a certificate is not resumed as somebody', async () => {
      for (const [url, path] of [[endpoint.url, '/v1/heartbeat'], [one.agentUrl, '/v1/info']] as const) {
        const {hostname, port} = new URL(url);
        const to = {host: hostname, port: Number(port), rejectUnauthorized: false} as const;
        const sessions: Buffer[] = [];
        await new Promise<void>((resolve) => {
          const socket = tls.connect(to).on('session', (session: Buffer) => sessions.push(session)).on('error', () => undefined).on('close', () => resolve());
          socket.on('data', () => socket.end());
          socket.write('GET /v1/info HTTP/1.1\r\nHost: x\r\n\r\n');
        });
        for (const session of [undefined, ...sessions]) {
          const answer = await new Promise<string>((resolve) => {
            let text = '';
            const socket = tls.connect({...to, session}).on('error', () => undefined).on('close', () => resolve(text)).on('data', (bytes) => { text += String(bytes); });
            socket.write(`${path === '/v1/info' ? 'GET' : 'POST'} ${path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`);
          });
          expect(answer).not.toMatch(/^HTTP\/1.1 (2|404|400)/);
        }
      }
    });

    test('orders are an endpoint\'s to give; a node may ask another for blobs alone', async () => {
      const peer = two.identity.credentials.current;
      for (const [method, path] of [['GET', '/v1/info'], ['GET', '/v1/inventory'], ['POST', '/v1/tasks']] as const)
        expect(await call(one.agentUrl, path, peer, {}, method)).toMatchObject({status: 403, message: expect.stringContaining('node-2 gives no orders here')});
      expect((await call(one.agentUrl, `/v1/blobs/sha256:${'0'.repeat(64)}`, peer, undefined, 'GET')).status).not.toBe(403);
      expect(await call(one.agentUrl, '/v1/info', endpoint.authority.credentials.current, undefined, 'GET')).toMatchObject({status: 200});
    });

    test('an endpoint gives orders to the node that it means, not to whoever answers at its address', async () => {
      const stored = await world.moray.get<Node>(BUCKETS.nodes.name, 'node-1');
      await world.moray.put(BUCKETS.nodes.name, 'node-1', {...stored.value, facts: {...stored.value.facts, agentUrl: two.agentUrl}});
      await until('the new address is known', async () => (await endpoint.fleet.node('node-1')).facts.agentUrl === two.agentUrl);
      await expect((await endpoint.fleet.agent('node-1')).info()).rejects.toMatchObject({kind: 'unavailable', message: expect.stringContaining('is not node node-1: its certificate is of node node-2')});
    });

    test('a node that is removed is cut off at once, stays out, and may come back with a token', async () => {
      endpoint.fleet.onDocker(() => undefined);
      await world.moray.put(BUCKETS.containers.name, 'c1', aContainer({id: 'c1', nodeId: 'node-1', node: 'node-1'}));
      const open = await one.link.docker!('c1');
      open.on('error', () => undefined);
      const ended = new Promise((resolve) => open.once('end', resolve).once('close', resolve));
      open.resume();
      const mine = one.identity.credentials.current;
      await remove('node-1');
      await ended;
      await until('its calls are refused', async () => (await call(endpoint.url, '/v1/heartbeat', mine, beat('node-1'))).status === 401);
      expect(await call(endpoint.url, '/v1/join', mine, someFacts({nodeId: 'node-1', name: 'node-1'}))).toMatchObject({status: 401, message: expect.stringContaining('was revoked: removed')});
      await expect(one.link.renew({nodeId: 'node-1', request: 'x'})).rejects.toMatchObject({kind: 'unauthorized'});
      // Its peers learn it with their next heartbeat, and keep it for their next life.
      await two.link.heartbeat(beat('node-2') as never);
      const told = await two.link.heartbeat({...beat('node-2'), revokedVersion: ''} as never);
      expect(told.revoked?.serials).toHaveLength(1);
      expect(await two.link.heartbeat({...beat('node-2'), revokedVersion: told.revoked!.version} as never)).not.toHaveProperty('revoked');
      await two.identity.listening(two.link).heartbeat(beat('node-2') as never);
      expect(await call(two.agentUrl, `/v1/blobs/sha256:${'0'.repeat(64)}`, mine, undefined, 'GET')).toMatchObject({status: 401, message: expect.stringContaining('revoked')});
      expect(two.files.loadRevoked()).toEqual(told.revoked);
      await one.stop();
      const {token} = await endpoint.authority.tokens.create({});
      await world.enrol(endpoint.url, token, 'node-1', one.files);
      await world.start(one.files, 'node-1', [endpoint.url]);
      await lives(endpoint, 'node-1');
    });
  });

  test('certificates are renewed on both sides while streams are open', async () => {
    // Made 80 days ago for 90: renewed after 60, which is within what TLS takes for now.
    await fresh(new SteppedClock(-80 * DAY_MS));
    const endpoint = await world.endpoint();
    const node = await world.node(endpoint, 'node-1');
    await lives(endpoint, 'node-1');
    const before = {node: node.identity.credentials.current, endpoint: endpoint.authority.credentials.current};
    await world.moray.put(BUCKETS.containers.name, 'c1', aContainer({id: 'c1', nodeId: 'node-1', node: 'node-1'}));
    endpoint.fleet.onDocker((socket) => socket.pipe(socket));
    const stream = await node.link.docker!('c1');
    const echo = async (text: string): Promise<string> => {
      const answer = new Promise((resolve) => stream.once('data', resolve));
      stream.write(text);
      return String(await answer);
    };
    expect(await echo('before')).toBe('before');
    world.clock.offsetMs += 61 * DAY_MS;
    await until('both are renewed', () => node.identity.credentials.current !== before.node && endpoint.authority.credentials.current !== before.endpoint);
    expect(await echo('after')).toBe('after');
    expect(node.identity.credentials.current.key).not.toBe(before.node.key);
    expect(node.files.load()).toEqual(node.identity.credentials.current);
    // Both go on with the new ones; the old ones end with their dates.
    await node.link.heartbeat({nodeId: 'node-1', bootGeneration: 1, reportSeq: 0, runningContainers: 0});
    expect(await (await endpoint.fleet.agent('node-1')).info()).toMatchObject({nodeId: 'node-1'});
    const {hostname, port} = new URL(node.agentUrl);
    const shown = await new Promise<string>((resolve, reject) => {
      const socket = tls.connect({host: hostname, port: Number(port), ...endpoint.authority.credentials.current, checkServerIdentity: mustBe('node', 'node-1')}, () => {
        resolve(socket.getPeerX509Certificate()!.toString());
        socket.destroy();
      }).once('error', reject);
    });
    expect(shown.trim()).toBe(node.identity.credentials.current.cert.trim());
    world.clock.offsetMs += 30 * DAY_MS;
    expect(await call(endpoint.url, '/v1/heartbeat', before.node, {nodeId: 'node-1', bootGeneration: 1, reportSeq: 0, runningContainers: 0})).toMatchObject({status: 401, message: expect.stringContaining('has expired')});
    stream.destroy();
  });

  describe('the authority', () => {
    test('is made once, by whichever endpoint is first, and opened by whoever has its key file', async () => {
      await fresh();
      writeFileSync(world.keyFile, 'a phrase that is long enough\n', {mode: 0o600});
      const several = await Promise.all(['a', 'b', 'c'].map((id) => world.endpoint(id)));
      expect(new Set(several.map((e) => e.authority.certificate)).size).toBe(1);
      const node = await world.node(several[0], 'node-1', [several[1].url, several[2].url]);
      await lives(several[1], 'node-1');
      expect(await (await several[2].fleet.agent('node-1')).info()).toMatchObject({agentUrl: node.agentUrl});
    });

    test('endpoints of one machine that begin in the same moment have one key file', async () => {
      await fresh();
      const begun = await Promise.all([1, 2, 3].map((n) => world.endpoint(`endpoint-${n}`)));
      expect(new Set(begun.map(({authority}) => authority.fingerprint)).size).toBe(1);
      // Of those that find none together, each in its process, one makes it.
      const file = join(world.dir, 'together.key');
      expect(makeKeyFile(file)).toBe(makeKeyFile(file));
      expect(readdirSync(world.dir).filter((name) => name.startsWith('together'))).toEqual(['together.key']);
      expect(statSync(file).mode & 0o777).toBe(0o600);
    });

    test('a key file that is missing, another one, open to others or too short is named', async () => {
      await fresh();
      const open = (keyFile: string): Promise<unknown> => world.endpoint('e', {keyFile});
      await world.endpoint('first');
      const file = join(world.dir, 'other.key');
      await expect(open(file)).rejects.toMatchObject({kind: 'invalid', message: expect.stringContaining(`${file} is missing`)});
      writeFileSync(file, 'another phrase, long enough', {mode: 0o600});
      await expect(open(file)).rejects.toMatchObject({kind: 'forbidden', message: expect.stringContaining('is not the one with which')});
      writeFileSync(file, 'short');
      await expect(open(file)).rejects.toMatchObject({message: expect.stringContaining('less than 16 bytes')});
      chmodSync(file, 0o640);
      await expect(open(file)).rejects.toMatchObject({message: expect.stringContaining('can be read by others')});
      expect(statSync(world.keyFile).mode & 0o777).toBe(0o600);
    });

    test('a clock that is far behind is named before anything is signed', async () => {
      await fresh();
      await world.endpoint();
      const behind = new SteppedClock(-2 * DAY_MS);
      await expect(FleetAuthority.open({moray: world.moray, clock: behind, log: silentLog(), keyFile: world.keyFile, endpointId: 'late', addresses: []}))
        .rejects.toMatchObject({message: expect.stringContaining('the clock of this machine is wrong')});
    });
  });
}
