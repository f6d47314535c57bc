/**
 * What a peer does next: pure and total. The order of the questions is the order of their weight: readers' safety first, then who this peer is,
 * then what its server lacks for that role, and what it says of itself last.
 */
import {roleOf} from '../state';
import {act, wait, type Action} from './action';
import {deposed} from './deposed';
import {found} from './found';
import {primary} from './primary';
import {hasForeignData, heldNothing, isAnnounced, type Situation} from './situation';
import {async, newcomer, sync} from './standby';

export function decide(s: Situation): Action {
  const {view, facts, self} = s;
  if (facts.gate === 'open' && s.nowMs >= s.leaseUntilMs) return act({kind: 'closeGate'}, 'ZooKeeper may have ended our session: another peer may let clients in from now on');
  if (view === null) return wait('ZooKeeper does not answer');
  if (view.state === null) return found({...s, view});

  const member = {...s, view, state: view.state};
  const role = roleOf(view.state, self.id);
  if (facts.gate === 'open' && role !== 'primary') return act({kind: 'closeGate'}, `this peer is ${role === 'none' ? 'no member' : role} in generation ${view.state.generation}`);
  // The lease is the present session's. One that began after ours had expired protects nobody who has no node in it.
  if (facts.gate === 'open' && !isAnnounced(member)) return act({kind: 'closeGate'}, 'its node is none of the present session: another peer may have taken over');
  if (hasForeignData(member) && !(role !== 'none' && role !== 'primary' && heldNothing(s)) && !view.rebuild.includes(self.id)) {
    if (facts.process !== 'stopped') return act({kind: 'stop', how: 'fast'}, 'its data are of another database');
    if (isAnnounced(member)) return act({kind: 'withdraw'}, 'its data are of another database');
    return wait(`the data are of another database (system identifier ${facts.systemId}, the cluster's is ${view.state.systemId}); \`cetus db rebuild ${self.id}\` throws them away`);
  }
  switch (role) {
    case 'primary': return primary(member);
    case 'sync': return sync(member);
    case 'async': return async(member);
    case 'deposed': return deposed(member);
    case 'none': return newcomer(member);
  }
}
