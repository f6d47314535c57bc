/** A primary that was taken over from: its WAL may hold what nobody else has, so it is rewound or copied before it is anything again (I6). */
import {act, type Action} from './action';
import type {Member} from './situation';
import {asStandby, rewound, settled} from './standby';

export function deposed(s: Member): Action {
  const {facts, state, self} = s;
  const {deposedIn} = state.deposed.find((peer) => peer.id === self.id)!;
  if (facts.data === 'present' && facts.restoredIn < deposedIn && facts.systemId === state.systemId) {
    if (facts.process === 'hung') return act({kind: 'stop', how: 'immediate'}, `deposed in generation ${deposedIn}`);
    return rewound(s, `deposed in generation ${deposedIn}`);
  }
  return asStandby(s, state.primary) ?? settled(s);
}
