/**
 * What is asked of the store directly: placement over the fleet as it is, in this process, and containers of other accounts. An endpoint without identities knows one account; so
 * these are copies of one real container under other ids, names and accounts, written into the store. No agent has them. Nothing is ever asked of them here but not to be in the way.
 */
import {randomBytes} from 'node:crypto';
import {silentLog} from '../../lib/base/log';
import {DEFAULT_JOB_CONFIG, NOTHING_RESERVED} from '../../lib/jobs/services';
import {feedPlacement} from '../../lib/main/placement-feed';
import type {BatchOp} from '../../lib/moray/moray';
import {createPlacementIndex} from '../../lib/placement/index';
import {BUCKETS} from '../../lib/schema/buckets';
import type {Container} from '../../lib/schema/container';
import {nodeId, nodeName, rackOf} from '../sim-fleet/node';
import type {Datacenter} from './datacenter';
import {spread, type Spread} from './measure';

const PLACEMENTS = 5_000;
/** Not counted: code that runs for the first time, as no endpoint's does after its first second. */
const WARM_UP = 500;
const BATCH = 250;
const ACCOUNTS = 100;

/** The endpoint's own index, fed by the same code from the same store, and asked as a create asks. */
export async function placements({moray}: Datacenter, imageId: string, imageReference: string): Promise<Spread> {
  const stop = new AbortController();
  const index = createPlacementIndex();
  await feedPlacement(moray, index, DEFAULT_JOB_CONFIG, silentLog(), stop.signal);
  const samples: number[] = [];
  for (let n = -WARM_UP; n < PLACEMENTS; n += 1) {
    const request = {
      account: 'default', containerName: `p-${n}`, labels: {}, platform: 'linux/amd64', reservation: {...NOTHING_RESERVED, memoryBytes: 64 * 2 ** 20}, imageReference, imageId, pinnedNodes: [], ports: [],
      // Every other one wants a rack.
      expressions: n % 2 ? [`constraint:rack==~${rackOf((n + WARM_UP) * 7)}`] : [],
    };
    const from = performance.now();
    index.place(request);
    if (n >= 0) samples.push(performance.now() - from);
  }
  stop.abort(new Error('placed'));
  return spread(samples);
}

export async function seedOthers({moray}: Datacenter, templateId: string, count: number, nodes: number): Promise<void> {
  const {value: template} = await moray.get<Container>(BUCKETS.containers.name, templateId);
  for (let from = 0; from < count; from += BATCH) {
    const ops = Array.from({length: Math.min(BATCH, count - from)}, (_, n): BatchOp => {
      const number = from + n;
      const id = randomBytes(32).toString('hex');
      const account = `other-${number % ACCOUNTS}`;
      const name = `c-${number}`;
      const on = number % nodes;
      const {reschedule: _stays, ...rest} = template;
      const value: Container = {...rest, id, account, name, accountName: `${account}/${name}`, nodeId: nodeId(on), node: nodeName(on), spec: {...template.spec, id, account, name}, observation: {...template.observation, containerId: id}};
      return {op: 'put', bucket: BUCKETS.containers.name, key: id, value, etag: null};
    });
    await moray.batch(ops);
  }
}
