/**
 * How a machine becomes a node: `cetus agent --join URL --token T` writes DIR/agent.json, whose node id is the machine's for ever, and comes to a certificate. Each
 * step may have been done by a start before this one that did not come to its end; what is there is kept.
 */
import {createHash, randomUUID, X509Certificate} from 'node:crypto';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import {connectControlPlane} from '../agent/control-plane';
import {enroll, meet, type Met} from '../agent/identity/enroll';
import {IdentityFiles} from '../agent/identity/files';
import {NodeIdentity} from '../agent/identity/identity';
import {systemClock} from '../base/clock';
import {CetusError, isCetusError} from '../base/errors';
import type {Log} from '../base/log';
import {isLoopback} from '../base/loopback';
import {makeRequest, publicKeyHash} from '../base/x509';
import {parseJoinToken} from '../schema/join-token';
import {AGENT_PORT, parseListen} from './address';
import {type AgentConfig, readAgentConfig} from './config';

/** What the command line says of a machine that joins; what is absent is found out. */
export interface JoinFlags {
  urls: string[];
  token: string;
  data: string;
  name?: string;
  listen?: string;
  containerd: string;
  labels: Record<string, string>;
}

export const configPath = (data: string): string => path.join(path.resolve(data), 'agent.json');

/** The node's configuration, made where there is none yet. */
export async function prepareConfig(flags: JoinFlags): Promise<string> {
  const file = configPath(flags.data);
  if (fs.existsSync(file)) return file;
  const {localAddress} = await meetAny(flags.urls, parseJoinToken(flags.token).fingerprint);
  const dir = path.resolve(flags.data);
  const nodeId = randomUUID();
  const own = os.hostname().split('.')[0].replace(/[^a-zA-Z0-9_.-]/g, '-').replace(/^[^a-zA-Z0-9]+/, '') || 'node';
  const config: AgentConfig = {
    nodeId, name: flags.name ?? own, dataDir: path.join(dir, 'agent'), rootDir: dir, containerdSocket: path.resolve(flags.containerd), containerdNamespace: 'cetus',
    listen: flags.listen ?? `${net.isIPv6(localAddress) ? `[${localAddress}]` : localAddress}:${AGENT_PORT}`, controlPlane: flags.urls,
    prefix: createHash('sha256').update(nodeId).digest('hex').slice(0, 5), labels: flags.labels, insecureRegistries: [], logLevel: 'info',
    ...(isLoopback(localAddress) ? {} : {underlay: {address: localAddress}}),
  };
  fs.mkdirSync(dir, {recursive: true, mode: 0o711});
  const temporary = `${file}.new`;
  fs.writeFileSync(temporary, `${JSON.stringify(config, null, 2)}\n`, {mode: 0o600});
  // What is refused now would be refused by every start.
  readAgentConfig(temporary);
  fs.renameSync(temporary, file);
  return file;
}

/** The node's certificate; where it has none, or none that is taken any more, by the token. */
export async function nodeIdentity(config: AgentConfig, token: string | undefined, log: Log): Promise<NodeIdentity> {
  const files = new IdentityFiles(path.join(config.dataDir, 'identity'));
  const at = parseListen(config.listen);
  const addresses = at.kind === 'tcp' && net.isIP(at.host) && !['0.0.0.0', '::'].includes(at.host) ? [at.host] : [];
  const identity = (): NodeIdentity => new NodeIdentity({files, nodeId: config.nodeId, addresses, clock: systemClock, log});
  if (token === undefined) return identity();
  const urls = typeof config.controlPlane === 'string' ? [config.controlPlane] : config.controlPlane;
  const {fingerprint} = parseJoinToken(token);
  const before = files.load();
  if (before && await isMember(config, files, addresses, fingerprint)) {
    log.info('this node has joined already; the token was not used');
    return identity();
  }
  const {url, ...met} = await meetAny(urls, fingerprint);
  // With the key it has, where it has one: that shows that it is the node whose id it claims.
  const key = before?.key ?? files.pendingKey();
  files.adopt(key, config.nodeId, met.authority, await enroll(url, met, key, {token, nodeId: config.nodeId, name: config.name, addresses}));
  log.info({nodeId: config.nodeId, node: config.name}, 'this machine is a node now');
  return identity();
}

/** Asked of the control plane with the certificate that is there: it may have been revoked, or be of a datacenter that is no more. */
async function isMember(config: AgentConfig, files: IdentityFiles, addresses: string[], fingerprint: string): Promise<boolean> {
  const material = files.load()!;
  if (publicKeyHash(material.ca, 'base64url') !== fingerprint || Date.parse(new X509Certificate(material.cert).validTo) <= Date.now()) return false;
  const link = connectControlPlane(config.controlPlane, material);
  try {
    await link.renew({nodeId: config.nodeId, request: await makeRequest(material.key, config.nodeId, addresses)});
    return true;
  } catch (err) {
    // Where nobody answers it goes on with what it has: its containers run whether or not anybody can be asked.
    return !isCetusError(err, 'unauthorized');
  } finally {
    await link.close();
  }
}

/** The first that answers; one that is somebody else's ends it. */
async function meetAny(urls: readonly string[], fingerprint: string): Promise<Met & {url: string}> {
  let last: unknown;
  for (const url of urls) {
    try {
      return {...await meet(url, fingerprint), url};
    } catch (err) {
      if (!isCetusError(err, 'unavailable')) throw err;
      last = err;
    }
  }
  throw last ?? new CetusError('invalid', 'no control plane to join');
}
