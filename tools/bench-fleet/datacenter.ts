/**
 * A datacenter for the bench: its own Postgres, as durable as ever (or one that is given), one real `cetus endpoint` with mutual TLS towards agents, and a simulated
 * fleet behind it. Everything lies in one directory and ends with `stop`.
 */
import {randomUUID} from 'node:crypto';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import {silentLog} from '../../lib/base/log';
import type {EndpointConfig} from '../../lib/main/config';
import {startPostgres, type RunningPostgres} from '../../lib/main/postgres';
import {NODE_FLAGS, SupervisedChild} from '../../lib/main/up/child';
import {createMoray} from '../../lib/moray/postgres';
import type {Moray} from '../../lib/moray/moray';
import {BUCKETS} from '../../lib/schema/buckets';
import {Certificates, makeSigner} from '../sim-fleet/certificates';
import {SimFleet} from '../sim-fleet/fleet';

const PROGRAM = path.resolve(__dirname, '../../dist/main/cetus.js');

export interface DatacenterOptions {
  nodes: number;
  /** An empty database, in place of a Postgres of its own. */
  postgresUrl?: string;
  /** For the endpoint's process: --cpu-prof and the like. */
  nodeFlags?: string[];
  /** Nodes in one process of the simulated fleet, at most. */
  perProcess?: number;
}

/** A fleet's store is sized by its operator: this one has room for its tables. Durability is as everywhere. */
const FLEET_STORE = {shared_buffers: '512MB', max_wal_size: '4GB'};
/** So is its endpoint: with the young generation of a machine's own (4 MB) what is under way in a fleet is taken for old, and a tenth of its time goes into that. */
const FLEET_ENDPOINT = ['--max-semi-space-size=32'];

export class Datacenter {
  private readonly undo: (() => Promise<unknown> | void)[] = [];
  private child!: SupervisedChild;
  private postgres: RunningPostgres | undefined;
  fleet!: SimFleet;
  /** HOST:PORT for Docker clients. */
  address!: string;
  storeUrl!: string;
  /** A client of the store beside the endpoint's own. */
  moray!: Moray;
  private directory = '';

  constructor(private readonly options: DatacenterOptions) {}

  get endpointPids(): number[] { return this.child.pid === undefined ? [] : [this.child.pid]; }
  /** Empty where the Postgres is not ours. */
  get storePids(): number[] { return this.postgres ? [this.postgres.pid] : []; }

  /** Resolves when all nodes have joined. `stop` is the caller's, also where this fails. */
  async start(): Promise<void> {
    const {nodes, postgresUrl, nodeFlags = [], perProcess} = this.options;
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-bench-fleet-'));
    this.directory = dir;
    this.undo.push(() => fs.rmSync(dir, {recursive: true, force: true}));
    // Postgres runs as a user of its own and must get through.
    fs.chmodSync(dir, 0o711);
    for (const below of ['run', 'log']) fs.mkdirSync(path.join(dir, below));
    if (!postgresUrl) {
      this.postgres = await startPostgres({dataDir: path.join(dir, 'postgres'), socketDir: path.join(dir, 'run'), log: silentLog(), settings: FLEET_STORE});
      this.undo.push(() => this.postgres!.stop());
    }
    this.storeUrl = postgresUrl ?? this.postgres!.url;
    const signer = makeSigner();
    const files = {ca: path.join(dir, 'ca.pem'), cert: path.join(dir, 'endpoint.pem'), key: path.join(dir, 'endpoint.key')};
    const material = new Certificates(signer).of('endpoint', 'bench', '127.0.0.1');
    for (const part of ['ca', 'cert', 'key'] as const) fs.writeFileSync(files[part], material[part], {mode: 0o600});
    const fleetListen = `127.0.0.1:${await freePort()}`;
    const config: EndpointConfig = {
      id: randomUUID(), name: 'bench', postgresUrl: this.storeUrl, listen: ['127.0.0.1:0'], adminListen: [`unix://${path.join(dir, 'run', 'admin.sock')}`], fleetListen, fleetTls: files,
      policy: {allowHostNetwork: true, allowPrivileged: true, allowBinds: 'all'},
      // Room for a network for each ten of hundreds of thousands of containers.
      addressPools: [{base: '10.0.0.0/8', size: 24}], logLevel: 'warn',
    };
    const configFile = path.join(dir, 'run', 'endpoint.json');
    fs.writeFileSync(configFile, JSON.stringify(config), {mode: 0o600});
    this.child = new SupervisedChild({
      name: 'endpoint', log: silentLog(), readyTimeoutMs: 60_000, stopTimeoutMs: 20_000, logFile: path.join(dir, 'log', 'endpoint.log'),
      args: [...NODE_FLAGS, ...FLEET_ENDPOINT, ...nodeFlags, PROGRAM, 'endpoint', '--config', configFile],
    });
    this.undo.push(() => this.child.stop());
    const ready = await this.child.start();
    this.address = String((ready.listen as string[])[0]).replace('tcp://', '');
    this.moray = createMoray({url: this.storeUrl, log: silentLog()});
    this.undo.push(() => this.moray.close());
    await this.moray.open(...Object.values(BUCKETS));
    this.fleet = new SimFleet({count: nodes, controlPlane: `https://${fleetListen}`, signer, perProcess});
    this.undo.push(() => this.fleet.stop());
    await this.fleet.start();
  }

  /** The last lines of the endpoint's log, for who has to find out why. */
  lastWords(lines = 5): string {
    const log = path.join(this.directory, 'log', 'endpoint.log');
    return !fs.existsSync(log) ? '' : fs.readFileSync(log, 'utf8').trimEnd().split('\n').slice(-lines).map((line) => line.slice(0, 600)).join('\n');
  }

  async stop(): Promise<void> {
    let failed: unknown;
    for (let step = this.undo.pop(); step; step = this.undo.pop()) await Promise.resolve().then(step).catch((err: unknown) => { failed ??= err; });
    if (failed) throw failed;
  }
}

/** The endpoint has to be told which, for the agents are before it says where it listens. */
function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = net.createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const {port} = server.address() as net.AddressInfo;
      server.close(() => resolve(port));
    });
  });
}
