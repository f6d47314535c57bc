/** The Engine API at the endpoint, over TCP with kept connections: what N clients do that are always connected. */
import {Pool} from 'undici';

/** Far below the endpoint's own: on a busy machine a call could meet a connection in the moment of its end. */
const KEEP_ALIVE_MS = 1_000;

export interface Created { Id: string }

export class Docker {
  private readonly pool: Pool;

  constructor(address: string, connections: number) {
    this.pool = new Pool(`http://${address.replace('tcp://', '')}`, {connections, pipelining: 1, keepAliveTimeout: KEEP_ALIVE_MS, keepAliveMaxTimeout: KEEP_ALIVE_MS, headersTimeout: 120_000, bodyTimeout: 120_000});
  }

  async call<T>(method: 'GET' | 'POST' | 'DELETE', path: string, body?: unknown): Promise<T> {
    const answer = await this.pool.request({
      method, path: `/v1.41${path}`, ...(body === undefined ? {} : {body: JSON.stringify(body), headers: {'content-type': 'application/json'}}),
    });
    const text = await answer.body.text();
    if (answer.statusCode >= 400) throw new Error(`${method} ${path}: ${answer.statusCode} ${text}`);
    try {
      return JSON.parse(text) as T;
    } catch {
      return text as T;
    }
  }

  /** Of these bytes only the number is wanted: what the client makes of them is not the endpoint's time. */
  async read(path: string): Promise<number> {
    const answer = await this.pool.request({method: 'GET', path: `/v1.41${path}`});
    const bytes = (await answer.body.arrayBuffer()).byteLength;
    if (answer.statusCode >= 400) throw new Error(`GET ${path}: ${answer.statusCode}`);
    return bytes;
  }

  async run(name: string, body: object): Promise<string> {
    const {Id} = await this.call<Created>('POST', `/containers/create?name=${name}`, body);
    await this.call('POST', `/containers/${Id}/start`);
    return Id;
  }

  close(): Promise<void> {
    return this.pool.destroy();
  }
}
