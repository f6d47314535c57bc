/**
 * A node's certificate while its agent runs: renewed after two thirds of its life, with a new key, by the connection that the old one opens; and whom nobody
 * trusts any more. Streams that are open go on with the certificate that they began with.
 */
import {X509Certificate} from 'node:crypto';
import type {Clock} from '../../base/clock';
import {Credentials} from '../../base/credentials';
import {asCetusError, CetusError} from '../../base/errors';
import type {Log} from '../../base/log';
import type {Peer} from '../../base/peer';
import {makeRequest} from '../../base/x509';
import {type CertificateAnswer, NOTHING_REVOKED, type RenewRequest, type RevokedSerials} from '../../schema/authority';
import type {ReportSink} from '../parts';
import type {IdentityFiles} from './files';

const RETRY_MS = 60_000;
/** A machine that slept, or whose clock was set, looks again after so long. */
const LOOK_MS = 3_600_000;
/** Of a life: nodes that enrolled together do not renew together. */
const SPREAD = 0.05;

export interface IdentityOptions {
  files: IdentityFiles;
  nodeId: string;
  /** What the certificate names beside the id. */
  addresses: string[];
  clock: Clock;
  log: Log;
  random?(): number;
}

export class NodeIdentity {
  readonly credentials: Credentials;
  private revoked: ReadonlySet<string>;
  private version: string;
  private readonly stopped = new AbortController();
  private renewing: Promise<void> | undefined;

  /** Throws `invalid` where the node has not enrolled. */
  constructor(private readonly options: IdentityOptions) {
    const material = options.files.load();
    if (!material) throw new CetusError('invalid', 'this machine has no certificate: join it with `cetus agent --join URL --token TOKEN`');
    this.credentials = new Credentials(material);
    const list = options.files.loadRevoked();
    this.revoked = new Set(list?.serials);
    this.version = list?.version ?? NOTHING_REVOKED;
  }

  /** For the agent's server: may this caller still be listened to? */
  admit(peer: Peer): void {
    if (this.revoked.has(peer.serial)) throw new CetusError('unauthorized', `the certificate of ${peer.role} ${peer.id} was revoked`);
    if (peer.notAfterMs <= this.options.clock.now()) throw new CetusError('unauthorized', `the certificate of ${peer.role} ${peer.id} has expired`);
  }

  /** The same way to the control plane, on which the node learns who is revoked. */
  listening(sink: ReportSink): ReportSink {
    return {
      ...sink,
      heartbeat: async (beat) => {
        const answer = await sink.heartbeat({...beat, revokedVersion: this.version});
        if (answer.revoked) this.learn(answer.revoked);
        return answer;
      },
    };
  }

  /** Renews from now on. */
  begin(renew: (request: RenewRequest) => Promise<CertificateAnswer>): void {
    this.renewing ??= this.run(renew);
  }

  async close(): Promise<void> {
    this.stopped.abort(new Error('closed'));
    await this.renewing;
  }

  private learn(list: RevokedSerials): void {
    this.revoked = new Set(list.serials);
    this.version = list.version;
    this.options.log.info({revoked: list.serials.length}, 'certificates were revoked');
    try {
      this.options.files.saveRevoked(list);
    } catch (err) {
      this.options.log.warn({err}, 'the list of revoked certificates could not be kept; it will be asked for again');
    }
  }

  private async run(renew: (request: RenewRequest) => Promise<CertificateAnswer>): Promise<void> {
    const {clock, log, files, nodeId, addresses, random = Math.random} = this.options;
    const share = 2 / 3 - SPREAD * random();
    while (!this.stopped.signal.aborted) {
      const {validFrom, validTo} = new X509Certificate(this.credentials.current.cert);
      const [fromMs, toMs] = [Date.parse(validFrom), Date.parse(validTo)];
      const waitMs = fromMs + (toMs - fromMs) * share - clock.now();
      try {
        if (waitMs > 0) {
          await clock.sleep(Math.min(waitMs, LOOK_MS), this.stopped.signal);
          continue;
        }
        const key = files.pendingKey();
        const answer = await renew({nodeId, request: await makeRequest(key, nodeId, addresses)});
        this.credentials.replace(files.adopt(key, nodeId, this.credentials.current.ca, answer));
        log.info({validTo: new X509Certificate(answer.certificate).validTo}, 'this node\'s certificate was renewed');
      } catch (err) {
        if (this.stopped.signal.aborted) return;
        log[asCetusError(err).kind === 'unavailable' ? 'warn' : 'error']({err, validTo}, 'this node\'s certificate could not be renewed; it is tried again');
        await clock.sleep(RETRY_MS, this.stopped.signal).catch(() => undefined);
      }
    }
  }
}
