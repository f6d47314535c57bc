/** A node of the fleet in the API's Node schema: what `docker node ls` and `docker node inspect` print. Pure. */
import type {Node, NodeAvailability, NodeLiveness} from '../../schema/node';
import {engineVersion} from '../version';
import {machineArch} from './info';

const AVAILABILITY: Record<NodeAvailability, string> = {active: 'active', cordoned: 'pause', draining: 'drain'};
/** Only who has told of itself in time is ready; who has been silent for long is down, also where we know that it has stopped its containers. */
const STATE: Record<NodeLiveness, string> = {alive: 'ready', suspect: 'unknown', lost: 'down', fenced: 'down'};

/** Where the agent is reached; one behind a socket is on this machine. */
function addressOf(agentUrl: string): string {
  if (!/^https?:/.test(agentUrl)) return '127.0.0.1';
  return URL.canParse(agentUrl) ? new URL(agentUrl).hostname.replace(/^\[(.*)\]$/, '$1') : '';
}

export function nodeView(node: Node): object {
  const {facts} = node;
  const updatedMs = Math.max(Date.parse(node.livenessAt) || 0, Date.parse(node.joinedAt) || 0, 0);
  return {
    ID: node.id,
    // Rises whenever its state does. There is nothing to update with it here.
    Version: {Index: updatedMs},
    CreatedAt: node.joinedAt,
    UpdatedAt: updatedMs ? new Date(updatedMs).toISOString() : node.joinedAt,
    Spec: {Labels: node.labels, Role: 'worker', Availability: AVAILABILITY[node.availability]},
    Description: {
      Hostname: node.name,
      Platform: {Architecture: machineArch(facts.architecture), OS: facts.osType},
      Resources: {NanoCPUs: facts.cpus * 1e9, MemoryBytes: facts.memoryBytes},
      Engine: {
        EngineVersion: engineVersion(facts.agentVersion),
        Labels: facts.labels,
        Plugins: [{Type: 'Log', Name: 'json-file'}, {Type: 'Log', Name: 'local'}, {Type: 'Network', Name: 'bridge'}, {Type: 'Network', Name: 'host'}, {Type: 'Network', Name: 'null'}, {Type: 'Volume', Name: 'local'}],
      },
    },
    Status: {State: STATE[node.liveness], ...(node.livenessReason ? {Message: node.livenessReason} : {}), Addr: addressOf(facts.agentUrl)},
  };
}
