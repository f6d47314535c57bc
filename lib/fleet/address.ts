/** Where an agent listens, from its URL: "unix:///path/agent.sock" or "https://address:port". */
import {contextOf, type Credentials, currentOf, type TlsMaterial} from '../base/credentials';
import {CetusError} from '../base/errors';
import {mustBe, refusal} from '../base/peer';

/** This endpoint's certificate towards an agent, as it is when a connection is made. */
export interface AgentTls {
  material: TlsMaterial | Credentials;
  /** Whose certificate the other side must show. Absent: the name in the URL decides, as in a browser. */
  nodeId?: string;
}

/** For tls.connect. */
export function clientTls({material, nodeId}: AgentTls): object {
  return {secureContext: contextOf(currentOf(material)), ...(nodeId === undefined ? {} : {checkServerIdentity: mustBe('node', nodeId)})};
}

export interface AgentAddress {
  /** For the HTTP client; of a unix socket the host part means nothing. */
  origin: string;
  socketPath?: string;
  host: string;
  port: number;
  secure: boolean;
}

export function parseAgentUrl(url: string): AgentAddress {
  let parsed: URL;
  try {
    parsed = new URL(url);
  } catch (err) {
    throw new CetusError('invalid', `agent URL ${JSON.stringify(url)} is not a URL`, {cause: err});
  }
  switch (parsed.protocol) {
    case 'unix:':
      return {origin: 'http://agent', socketPath: decodeURIComponent(parsed.pathname), host: 'agent', port: 0, secure: false};
    case 'https:':
      return {origin: parsed.origin, host: parsed.hostname, port: Number(parsed.port || 443), secure: true};
    default:
      // Plain TCP would hand root on the node to whoever can connect.
      throw new CetusError('invalid', `agent URL ${url} is neither unix:// nor https://`);
  }
}

/** `reach` says how far the call can have come: `none`, nobody listened; `broken`, it may have been heard. */
export function unreachableNode(node: string, err: unknown): CetusError {
  const code = (err as {code?: string}).code ?? '';
  const reach = code === 'ECONNREFUSED' || code === 'ENOENT' ? 'none' : code === 'UND_ERR_SOCKET' || code === 'ECONNRESET' || code === 'EPIPE' ? 'broken' : 'unknown';
  const why = /CERT|SIGNATURE/.test(code) ? refusal(code) : (err as Error).message;
  return new CetusError('unavailable', `node ${node} cannot be reached: ${why}`, {cause: err, shown: `node ${node} cannot be reached`, info: {reach}});
}
