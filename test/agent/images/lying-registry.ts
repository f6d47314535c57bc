/** A registry in this process that serves one image and lies as told: for what no honest registry can be made to do. */
import http from 'node:http';
import https from 'node:https';
import type {AddressInfo, Socket} from 'node:net';

export interface Request { method: string; path: string; headers: http.IncomingHttpHeaders }
export type Handler = (req: http.IncomingMessage, res: http.ServerResponse) => void;

export class LyingRegistry {
  readonly requests: Request[] = [];
  /** By path ("/v2/", "/v2/app/blobs/sha256:..."); what is missing answers 404. */
  readonly paths = new Map<string, Handler>();
  /** Connections that clients hold. */
  readonly open = new Set<Socket>();
  private readonly server: http.Server;
  private readonly answer = (req: http.IncomingMessage, res: http.ServerResponse): void => {
    const {pathname} = new URL(req.url!, 'http://registry');
    this.requests.push({method: req.method!, path: pathname, headers: req.headers});
    res.on('error', () => undefined);
    const handler = this.paths.get(pathname) ?? ((_req, answer) => {
      answer.statusCode = 404;
      answer.end('{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}');
    });
    handler(req, res);
  };

  constructor(tls?: {cert: string; key: string}) {
    this.server = tls ? https.createServer(tls, this.answer) : http.createServer(this.answer);
    this.server.on('connection', (socket) => {
      this.open.add(socket);
      socket.on('close', () => this.open.delete(socket));
    });
  }

  async start(): Promise<this> {
    await new Promise<void>((resolve) => this.server.listen(0, '127.0.0.1', resolve));
    this.paths.set('/v2/', (_req, res) => res.end('{}'));
    return this;
  }

  /** As registries behind load balancers do: says that idle connections may stay for so long, and lets them. */
  lingers(ms: number): this {
    this.server.keepAliveTimeout = ms;
    return this;
  }

  get host(): string {
    return `127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  serve(path: string, bytes: Buffer, headers: Record<string, string> = {}): void {
    this.paths.set(path, (_req, res) => res.writeHead(200, {'content-length': bytes.length, ...headers}).end(bytes));
  }

  to(path: string): Request[] {
    return this.requests.filter((r) => r.path === path);
  }

  async stop(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }
}

/** Sends bytes [from, until) as a range answer would be, then breaks the connection where `breaks`. */
export function sendRange(res: http.ServerResponse, bytes: Buffer, from: number, until: number, breaks: boolean): void {
  res.writeHead(from > 0 ? 206 : 200, {'content-length': bytes.length - from, ...(from > 0 ? {'content-range': `bytes ${from}-${bytes.length - 1}/${bytes.length}`} : {})});
  res.write(bytes.subarray(from, until), () => {
    if (breaks) res.destroy();
    else res.end();
  });
}

export function rangeStart(req: http.IncomingMessage): number {
  return Number(/^bytes=(\d+)-$/.exec(req.headers.range ?? '')?.[1] ?? 0);
}
