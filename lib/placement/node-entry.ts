/** What the index keeps of one node. Changed only by index.ts; read by filters, rank and explanations. */
import type {ContainerView, NodeView} from './placement';

export interface NodeEntry {
  id: string;
  /** Absent while containers or images of the node are known and the node itself is not. */
  view: NodeView | undefined;
  /** Free utilization level; -1 while the node cannot be scheduled on. */
  level: number;
  accounts: Map<string, number>;
  groups: Map<string, number>;
  /** "tcp/80" -> host address -> how many containers hold it. */
  ports: Map<string, Map<string, number>>;
  /** Image id -> every name it has here. */
  images: Map<string, string[]>;
  containers: Set<ContainerView>;
}

export function newEntry(id: string): NodeEntry {
  return {id, view: undefined, level: -1, accounts: new Map(), groups: new Map(), ports: new Map(), images: new Map(), containers: new Set()};
}

export function bump<K>(counts: Map<K, number>, key: K, delta: 1 | -1): {before: number; after: number} {
  const before = counts.get(key) ?? 0;
  const after = before + delta;
  if (after === 0) counts.delete(key);
  else counts.set(key, after);
  return {before, after};
}
