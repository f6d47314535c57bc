/** A fleet with certificates of its own: endpoints on one store, nodes that enrol, all in this process, over real TLS on loopback. */
import {mkdtempSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {type Agent, createAgent} from '../../lib/agent/agent';
import {type ControlPlaneLink, connectControlPlane} from '../../lib/agent/control-plane';
import {enroll, meet} from '../../lib/agent/identity/enroll';
import {IdentityFiles} from '../../lib/agent/identity/files';
import {NodeIdentity} from '../../lib/agent/identity/identity';
import {createFakeNetworking} from '../../lib/agent/network/fake';
import {createFakeRuntime} from '../../lib/agent/runtime/fake';
import {type Clock, systemClock} from '../../lib/base/clock';
import {silentLog} from '../../lib/base/log';
import {FleetAuthority} from '../../lib/fleet/authority/authority';
import {createFleet, type RunningFleet} from '../../lib/fleet/create';
import type {Moray} from '../../lib/moray/moray';
import {parseJoinToken} from '../../lib/schema/join-token';
import {plainSpecs, testFacts, testImages} from '../agent/node';

export const DAY_MS = 24 * 3_600_000;

/** The time of all of them, which a test sets forward. It began in the past, so that what is made then is good for TLS now. */
export class SteppedClock implements Clock {
  constructor(public offsetMs = 0) {}
  now(): number { return Date.now() + this.offsetMs; }
  nowNs(): bigint { return systemClock.nowNs() + BigInt(Math.round(this.offsetMs)) * 1_000_000n; }
  async sleep(ms: number, signal?: AbortSignal): Promise<void> {
    const until = this.now() + ms;
    do await systemClock.sleep(Math.min(20, Math.max(0, until - this.now())), signal); while (this.now() < until);
  }
}

export interface Endpoint { authority: FleetAuthority; fleet: RunningFleet; url: string; stop(): Promise<void> }
export interface JoinedNode { id: string; files: IdentityFiles; identity: NodeIdentity; link: ControlPlaneLink; agent: Agent; agentUrl: string; stop(): Promise<void> }

export class FleetWorld {
  readonly dir = mkdtempSync(join(tmpdir(), 'cetus-authority-'));
  readonly keyFile = join(this.dir, 'authority.key');
  private readonly running: {stop(): Promise<void>}[] = [];

  constructor(readonly moray: Moray, readonly clock: SteppedClock = new SteppedClock(), readonly lifeMs = 90 * DAY_MS) {}

  async endpoint(id = 'endpoint-1', part: {keyFile?: string; port?: number} = {}): Promise<Endpoint> {
    const {moray, clock, lifeMs} = this;
    const log = silentLog();
    const authority = await FleetAuthority.open({moray, clock, log, lifeMs, keyFile: part.keyFile ?? this.keyFile, endpointId: id, addresses: ['127.0.0.1']});
    const fleet = createFleet({moray, log, clock, listen: {host: '127.0.0.1', port: part.port ?? 0, tls: authority.credentials}, agentTls: authority.credentials, authority, endpoint: id, leaseMs: 6_000, nowMs: () => performance.now()});
    await fleet.start();
    const made = {authority, fleet, url: fleet.listenUrl, stop: () => fleet.stop()};
    this.running.push(made);
    return made;
  }

  files(name: string): IdentityFiles {
    return new IdentityFiles(join(this.dir, name, 'identity'));
  }

  /** As `cetus agent --join` does it. */
  async enrol(url: string, token: string, id: string, files = this.files(id), name = id): Promise<IdentityFiles> {
    const met = await meet(url, parseJoinToken(token).fingerprint);
    const key = files.pendingKey();
    files.adopt(key, id, met.authority, await enroll(url, met, key, {token, nodeId: id, name, addresses: ['127.0.0.1']}));
    return files;
  }

  /** An agent with the fake runtime, from enrolment to its first heartbeat. */
  async node(endpoint: Endpoint, id: string, urls: string[] = [endpoint.url]): Promise<JoinedNode> {
    const {token} = await endpoint.authority.tokens.create({labels: {from: 'token'}});
    return this.start(await this.enrol(endpoint.url, token, id), id, urls);
  }

  async start(files: IdentityFiles, id: string, urls: string[]): Promise<JoinedNode> {
    const {clock} = this;
    const log = silentLog();
    const identity = new NodeIdentity({files, nodeId: id, addresses: ['127.0.0.1'], clock, log, random: () => 0});
    const link = connectControlPlane(urls, identity.credentials);
    const agent = createAgent({
      facts: {...testFacts(), nodeId: id, name: id}, runtime: createFakeRuntime({clock: systemClock}), network: createFakeNetworking(), images: testImages, specs: plainSpecs,
      dataDir: join(this.dir, id, 'agent'), log, controlPlane: identity.listening(link), admit: (peer) => identity.admit(peer), bootId: 'boot',
    });
    await agent.open();
    const agentUrl = await agent.listen({host: '127.0.0.1', port: 0, tls: identity.credentials});
    identity.begin((request) => link.renew(request));
    let stopped = false;
    const made = {
      id, files, identity, link, agent, agentUrl,
      stop: async () => {
        if (stopped) return;
        stopped = true;
        await identity.close();
        await agent.close();
      },
    };
    this.running.push(made);
    return made;
  }

  async end(): Promise<void> {
    for (const one of this.running.splice(0).reverse()) await one.stop();
    await this.moray.close();
    rmSync(this.dir, {recursive: true, force: true});
  }
}

export async function until(what: string, condition: () => boolean | Promise<boolean>, ms = 30_000): Promise<void> {
  const end = Date.now() + ms;
  while (!await condition()) {
    if (Date.now() > end) throw new Error(`never: ${what}`);
    await new Promise((next) => setTimeout(next, 10));
  }
}
