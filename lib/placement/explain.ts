/** Turns rejected nodes into data and into the sentence of the "no space" error. */
import {CetusError} from '../base/errors';
import type {FilterName, Rejection} from '../schema/placement';
import {describeAmount, DIMENSIONS, free} from './filters/capacity';
import type {Asked} from './filters/filters';
import type {NodeView} from './placement';

const MAX_EXAMPLES = 5;

export class Rejections {
  private readonly byReason = new Map<string, Rejection>();

  add(filter: FilterName, detail: string, node: string): void {
    const rejection = this.of(filter, detail);
    rejection.count += 1;
    if (rejection.examples.length < MAX_EXAMPLES) rejection.examples.push(node);
  }

  set(filter: FilterName, detail: string, count: number, examples: Iterable<string>): void {
    if (count === 0) return;
    const rejection = this.of(filter, detail);
    rejection.count = count;
    rejection.examples = [];
    for (const name of examples) if (rejection.examples.push(name) >= MAX_EXAMPLES) break;
  }

  private of(filter: FilterName, detail: string): Rejection {
    const key = `${filter}\n${detail}`;
    let rejection = this.byReason.get(key);
    if (!rejection) this.byReason.set(key, (rejection = {filter, detail, count: 0, examples: []}));
    return rejection;
  }

  list(): Rejection[] {
    return [...this.byReason.values()].sort((a, b) => b.count - a.count || (a.filter + a.detail < b.filter + b.detail ? -1 : 1));
  }
}

const WORDING: Record<FilterName, (detail: string) => string> = {
  liveness: (detail) => `not reachable (${detail})`,
  cordon: (detail) => (detail === 'draining' ? 'being drained' : 'cordoned'),
  platform: (detail) => `not of platform ${detail}`,
  hardware: (detail) => `without ${detail}`,
  capacity: (detail) => `without enough free ${detail}`,
  constraint: (detail) => `against ${detail}`,
  affinity: (detail) => `against ${detail}`,
  volume: (detail) => `without volume ${detail}`,
  port: (detail) => `with port ${detail} already allocated`,
};

/** `roomy` are the nodes that only capacity rejected: what would have fitted is what the roomiest of them has free. */
export function noSpace(asked: Asked, rejections: Rejection[], roomy: Iterable<NodeView>, total: number): CetusError {
  const because = rejections.map((r) => `${r.count} ${WORDING[r.filter](r.detail)} (${r.examples.join(', ')}${r.count > r.examples.length ? ', ...' : ''})`);
  const {reservation} = asked.request;
  const wanted = DIMENSIONS.filter((d) => reservation[d] > 0).map((d) => {
    let best: NodeView | undefined;
    for (const node of roomy) if (!best || free(node, d) > free(best, d)) best = node;
    return `${describeAmount(d, reservation[d])}${best ? ` (most that fits: ${describeAmount(d, free(best, d))} on ${best.name})` : ''}`;
  });
  const message = total === 0
    ? 'no node can take this container: the datacenter has no nodes'
    : `no node of ${total} can take this container: ${because.join('; ')}${wanted.length ? `; asked: ${wanted.join(', ')}` : ''}`;
  return new CetusError('noSpace', message, {info: {rejections}});
}
