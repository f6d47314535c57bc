/** Does a node satisfy an expression? Affinities look only at containers of the request's own account: accounts are walls. */
import type {Expression} from '../affinity';
import type {NodeEntry} from '../node-entry';
import type {NodeView} from '../placement';

/** `matching`: the nodes on which its plain word is found, where the index could look that up. */
export type Located = Expression & {matching: ReadonlySet<NodeEntry> | undefined};

function subjects(entry: NodeEntry, view: NodeView, expression: Expression, account: string): Iterable<string> {
  if (expression.kind === 'constraint') {
    if (expression.key === 'node') return [view.name, view.id];
    const label = view.labels[expression.key];
    return label === undefined ? [] : [label];
  }
  if (expression.key === 'image') return [...entry.images.values()].flat();
  const found: string[] = [];
  for (const container of entry.containers) {
    if (container.account !== account) continue;
    if (expression.key === 'container') {
      found.push(container.name, container.id);
    } else {
      const label = container.labels[expression.key];
      if (label !== undefined) found.push(label);
    }
  }
  return found;
}

export function holds(entry: NodeEntry, view: NodeView, expression: Located, account: string): boolean {
  if (expression.matching) return expression.matching.has(entry) !== expression.negated;
  for (const subject of subjects(entry, view, expression, account))
    if (expression.pattern.matches(subject)) return !expression.negated;
  return expression.negated;
}
