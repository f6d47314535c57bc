/** The parts of node-zookeeper-client that session.ts uses; the package brings no types. */

declare module 'node-zookeeper-client/lib/ConnectionManager' {
  import type {EventEmitter} from 'node:events';
  import type {Socket} from 'node:net';
  import type {Request, Response} from 'node-zookeeper-client/lib/jute';

  interface Packet {request: Request; callback(error: unknown, response?: Response): void}

  class ConnectionManager extends EventEmitter {
    constructor(servers: string, options: {sessionTimeout: number; spinDelay: number}, stateListener: (state: number) => void);
    readonly servers: {host: string; port: string | number}[];
    state: number;
    socket?: Socket;
    connectTimeoutHandler?: NodeJS.Timeout | null;
    pendingBuffer: Buffer | null;
    packetQueue: {queue: Packet[]};
    findNextServer(callback: (server: {host: string; port: string | number}) => void): void;
    connect(): void;
    close(): void;
    onSocketData(bytes: Buffer): void;
    queue(request: Request, callback: Packet['callback']): void;
    getSessionId(): Buffer;
    getSessionTimeout(): number;
    registerDataWatcher(path: string, watcher: () => void): void;
    registerChildWatcher(path: string, watcher: () => void): void;
    registerExistenceWatcher(path: string, watcher: () => void): void;
    static readonly STATES: {DISCONNECTED: number; CONNECTING: number; CONNECTED: number; CLOSING: number; CLOSED: number; SESSION_EXPIRED: number};
  }
  export = ConnectionManager;
}

declare module 'node-zookeeper-client/lib/jute' {
  /** A number of 64 bits is a buffer of 8 bytes. */
  export interface Stat {czxid: Buffer; mzxid: Buffer; version: number; ephemeralOwner: Buffer}
  export interface Header {xid: number; type: number}
  export class Request {
    constructor(header: Header, payload: object);
    readonly header: Header;
  }
  export interface Response {
    header: {xid: number; zxid: Buffer; err: number};
    payload: {data?: Buffer; stat?: Stat; children?: string[]; results?: {type: number; err?: number}[]} | null;
  }
  export type TransactionOp =
    | {type: number; path: string; data: Buffer; acls: object[]; mode: number}
    | {type: number; path: string; data: Buffer; version: number}
    | {type: number; path: string; version: number};
  export class TransactionRequest {
    constructor(ops: TransactionOp[]);
  }
  export const OP_CODES: {CREATE: 1; DELETE: 2; EXISTS: 3; GET_DATA: 4; SET_DATA: 5; GET_CHILDREN2: 12; CHECK: 13; MULTI: 14; ERROR: -1};
  export const protocol: {
    RequestHeader: new (xid: number, type: number) => Header;
    ExistsRequest: new (path: string, watch: boolean) => object;
    GetDataRequest: new (path: string, watch: boolean) => object;
    GetChildren2Request: new (path: string, watch: boolean) => object;
  };
}

declare module 'node-zookeeper-client/lib/ACL' {
  export const OPEN_ACL_UNSAFE: object[];
}
