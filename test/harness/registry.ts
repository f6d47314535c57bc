/**
 * The distribution's docker-registry for one test file: own directory, free port on 127.0.0.1, gone afterwards. With `users` it asks for tokens,
 * which a small token server in this process gives (distribution's token specification, signed with a key made here).
 */
import {spawn, type ChildProcess} from 'node:child_process';
import {createHash, createPrivateKey, createPublicKey, createSign, randomUUID, type KeyObject} from 'node:crypto';
import fs from 'node:fs/promises';
import http from 'node:http';
import type {AddressInfo} from 'node:net';
import os from 'node:os';
import path from 'node:path';
import {selfSigned} from '../fleet/certificate';
import {freePort} from './ports';
import {until} from './wait';

export interface RegistryOptions {
  /** name -> password. Absent: no authentication. */
  users?: Record<string, string>;
  /** Asks for a name and a password itself: lines of an htpasswd file, bcrypt only. */
  htpasswd?: string;
}

/** jill's, with the password of the same name. */
export const JILL = {name: 'jill', password: 's3cret-of-jill', htpasswd: 'jill:$2b$04$HsvrQKNw5fC38YnAj4qDoOxQH8B5yWaFeScl0f0NPBTe20qrSm/4i\n'};

export interface TestRegistry {
  /** "127.0.0.1:PORT": the registry part of references. */
  host: string;
  url: string;
  /** What the token server was asked, oldest first: without passwords. */
  tokenRequests: {scope: string; account: string; grant: 'password' | 'refresh_token' | 'anonymous'}[];
  /** Headers with which a push of this repository is allowed. */
  pushHeaders(repository: string): Record<string, string>;
  stop(): Promise<void>;
}

const SERVICE = 'cetus-test-registry';
/** Tokens last this long; a pull that lasts longer must ask again. */
const TOKEN_SECONDS = 60;

export async function startRegistry(options: RegistryOptions = {}): Promise<TestRegistry> {
  const directory = await fs.mkdtemp(path.join(os.tmpdir(), 'cetus-registry-'));
  const port = await freePort();
  const tokens = options.users ? await startTokenServer(directory, options.users) : undefined;
  const config = {
    version: 0.1, log: {level: 'error', accesslog: {disabled: true}}, storage: {filesystem: {rootdirectory: path.join(directory, 'data')}, delete: {enabled: true}},
    http: {addr: `127.0.0.1:${port}`, secret: randomUUID()},
    ...(tokens ? {auth: {token: {realm: tokens.realm, service: SERVICE, issuer: SERVICE, rootcertbundle: tokens.certificate}}} : {}),
  };
  if (options.htpasswd !== undefined) {
    const passwords = path.join(directory, 'htpasswd');
    await fs.writeFile(passwords, options.htpasswd);
    Object.assign(config, {auth: {htpasswd: {realm: 'test', path: passwords}}});
  }
  const file = path.join(directory, 'registry.json');
  // YAML is a superset of JSON.
  await fs.writeFile(file, JSON.stringify(config));
  const child = spawn('docker-registry', ['serve', file], {stdio: ['ignore', 'ignore', 'pipe'], env: {PATH: process.env.PATH, OTEL_TRACES_EXPORTER: 'none'}});
  let complaint = '';
  child.stderr.on('data', (text: Buffer) => {
    complaint = (complaint + text.toString()).slice(-2000);
  });
  const url = `http://127.0.0.1:${port}`;
  const stop = async (): Promise<void> => {
    await ended(child);
    tokens?.server.closeAllConnections();
    tokens?.server.close();
    await fs.rm(directory, {recursive: true, force: true});
  };
  try {
    await until('the registry to answer', async () => {
      if (child.exitCode !== null) throw new Error(`docker-registry ended: ${complaint}`);
      return (await fetch(`${url}/v2/`)).status < 500;
    });
  } catch (err) {
    await stop();
    throw err;
  }
  return {
    host: `127.0.0.1:${port}`, url, tokenRequests: tokens?.requests ?? [],
    pushHeaders: (repository): Record<string, string> => (tokens ? {authorization: `Bearer ${tokens.sign('pusher', [{type: 'repository', name: repository, actions: ['pull', 'push']}])}`} : {}),
    stop,
  };
}

interface Access { type: string; name: string; actions: string[] }
interface TokenServer { realm: string; certificate: string; requests: TestRegistry['tokenRequests']; server: http.Server; sign(account: string, access: Access[]): string }

async function startTokenServer(directory: string, users: Record<string, string>): Promise<TokenServer> {
  const {cert, key} = selfSigned();
  const [publicKey, privateKey] = [createPublicKey(cert), createPrivateKey(key)];
  const certificate = path.join(directory, 'token.pem');
  await fs.writeFile(certificate, cert);
  const sign = (account: string, access: Access[]): string => jwt(privateKey, publicKey, account, access);
  const requests: TestRegistry['tokenRequests'] = [];
  const server = http.createServer((req, res) => void answer(req, res, users, requests, sign));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {realm: `http://127.0.0.1:${(server.address() as AddressInfo).port}/token`, certificate, requests, server, sign};
}

async function answer(req: http.IncomingMessage, res: http.ServerResponse, users: Record<string, string>, requests: TestRegistry['tokenRequests'], sign: TokenServer['sign']): Promise<void> {
  const url = new URL(req.url!, 'http://token');
  let form = new URLSearchParams();
  if (req.method === 'POST') {
    let body = '';
    for await (const chunk of req) body += String(chunk);
    form = new URLSearchParams(body);
  }
  const [name, password] = Buffer.from((req.headers.authorization ?? '').replace(/^Basic /, ''), 'base64').toString().split(':');
  // A user's refresh token is "refresh-" and the name.
  const refreshed = /^refresh-(.*)$/.exec(form.get('refresh_token') ?? '')?.[1];
  const account = refreshed !== undefined && refreshed in users ? refreshed : name && users[name] === password ? name : undefined;
  const scope = [...url.searchParams.getAll('scope'), form.get('scope') ?? ''].filter((s) => s !== '').join(' ');
  requests.push({scope, account: account ?? '', grant: form.has('refresh_token') ? 'refresh_token' : name ? 'password' : 'anonymous'});
  res.setHeader('content-type', 'application/json');
  if (account === undefined && (name || form.has('refresh_token'))) {
    res.statusCode = 401;
    res.end(JSON.stringify({details: 'incorrect username or password'}));
    return;
  }
  const access = scope.split(' ').filter((s) => s.startsWith('repository:')).map((s) => ({type: 'repository', name: s.split(':')[1], actions: s.split(':')[2]?.split(',') ?? []}))
    // Anonymous callers and everybody else read only what is public or their own, and write what is their own.
    .map((a) => ({...a, actions: account !== undefined && a.name.startsWith(`${account}/`) ? a.actions : a.name.startsWith('public/') ? a.actions.filter((action) => action === 'pull') : []}))
    .filter((a) => a.actions.length > 0);
  res.end(JSON.stringify({token: sign(account ?? '', access), expires_in: TOKEN_SECONDS}));
}

function jwt(privateKey: KeyObject, publicKey: KeyObject, account: string, access: Access[]): string {
  const now = Math.floor(Date.now() / 1000);
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  const body = `${part({typ: 'JWT', alg: 'ES256', kid: keyId(publicKey)})}.${part({iss: SERVICE, sub: account, aud: SERVICE, exp: now + TOKEN_SECONDS, nbf: now - 10, iat: now, jti: randomUUID(), access})}`;
  return `${body}.${createSign('sha256').update(body).sign({key: privateKey, dsaEncoding: 'ieee-p1363'}).toString('base64url')}`;
}

/** libtrust's fingerprint: 30 bytes of the digest of the public key, in base32 groups of four. */
function keyId(publicKey: KeyObject): string {
  const digest = createHash('sha256').update(publicKey.export({type: 'spki', format: 'der'})).digest().subarray(0, 30);
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';
  let bits = '';
  for (const byte of digest) bits += byte.toString(2).padStart(8, '0');
  return bits.match(/.{5}/g)!.map((five) => alphabet[parseInt(five, 2)]).join('').match(/.{4}/g)!.join(':');
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGKILL');
  await gone;
}
