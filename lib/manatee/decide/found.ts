/**
 * There is no cluster yet. The peer that was there first founds it when a second one has come, or alone where its configuration says so. Where anybody has
 * data, nobody founds: a ZooKeeper that has lost its memory must not make an old copy the truth. That is for an operator (`cetus db adopt`).
 */
import type {ClusterView} from '../coordination';
import {firstState} from '../state';
import {act, wait, type Action} from './action';
import {missingAnnouncement, type Situation} from './situation';

export function found(s: Situation & {view: ClusterView}): Action {
  const {view, self, policy, facts} = s;
  if (facts.gate === 'open') return act({kind: 'closeGate'}, 'the state of the cluster is gone from ZooKeeper');
  const announcement = missingAnnouncement(s);
  if (announcement) return act({kind: 'announce', announcement}, 'we are here');
  if (facts.data !== 'none') return wait('there is a database here and no cluster in ZooKeeper; `cetus db adopt` makes one of it');
  const owner = view.peers.find((peer) => peer.systemId !== null);
  if (owner) return wait(`${owner.id} has a database and there is no cluster in ZooKeeper; \`cetus db adopt\` makes one of it`);
  if (policy.oneNodeWriteMode) return act({kind: 'declare', next: firstState(self, [], true), version: view.version, absent: []}, 'founded in one-node-write mode');
  if (view.peers.length < 2) return wait('a second peer, to found a cluster with');
  if (view.peers[0]!.id !== self.id) return wait(`${view.peers[0]!.id} was here first and founds the cluster`);
  return act({kind: 'declare', next: firstState(self, view.peers.slice(1), false), version: view.version, absent: []}, `founded with ${view.peers.slice(1).map((peer) => peer.id).join(', ')}`);
}
