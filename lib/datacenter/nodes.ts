/**
 * The fleet as clients may see it: the nodes by the filters and the names of `docker node`. The nodes belong to no account, and nothing of
 * another account's containers is told with them. Throws the Engine's texts.
 */
import {CetusError} from '../base/errors';
import type {Node} from '../schema/node';
import type {Context} from './context';
import {acceptFilters, valuesOf} from './filters';
import type {Filters, NodeVerbs} from './verbs';

const FILTERS = ['id', 'label', 'membership', 'name', 'node.label', 'role'] as const;
const MEMBERSHIPS: readonly string[] = ['accepted', 'pending'];
const ROLES: readonly string[] = ['worker', 'manager'];

/** Labels of the node itself and those of its operator: the Engine keeps the two apart as `label` and `node.label`. */
function labelled(wanted: readonly string[], labels: Readonly<Record<string, string>>): boolean {
  return wanted.every((text) => {
    const at = text.indexOf('=');
    return at < 0 ? Object.hasOwn(labels, text) : labels[text.slice(0, at)] === text.slice(at + 1);
  });
}

const begins = (prefixes: readonly string[], ...texts: string[]): boolean => prefixes.length === 0 || prefixes.some((prefix) => texts.some((text) => text.startsWith(prefix)));

/** Case does not matter here, as in the Engine; an empty value is none. */
function oneOfWords(filters: Filters, name: string, known: readonly string[]): string[] {
  const words = valuesOf(filters, name).map((word) => word.toLowerCase()).filter((word) => word !== '');
  for (const word of words) if (!known.includes(word)) throw new CetusError('invalid', `Invalid ${name} filter: '${word}'`);
  return words;
}

export function selectNodes(nodes: readonly Node[], filters: Filters): Node[] {
  acceptFilters(filters, FILTERS);
  const roles = oneOfWords(filters, 'role', ROLES);
  const memberships = oneOfWords(filters, 'membership', MEMBERSHIPS);
  // Every node is a worker that has been accepted.
  if (roles.length > 0 && !roles.includes('worker')) return [];
  if (memberships.length > 0 && !memberships.includes('accepted')) return [];
  return nodes.filter((node) => begins(valuesOf(filters, 'id'), node.id) && begins(valuesOf(filters, 'name'), node.name)
    && labelled(valuesOf(filters, 'label'), node.facts.labels) && labelled(valuesOf(filters, 'node.label'), node.labels));
}

/** By id, then by name, then by a prefix of the id that is one node's. */
export function findNode(nodes: readonly Node[], idOrName: string): Node {
  const exact = nodes.find((node) => node.id === idOrName) ?? nodes.find((node) => node.name === idOrName);
  if (exact) return exact;
  const found = idOrName === '' ? [] : nodes.filter((node) => node.id.startsWith(idOrName));
  if (found.length > 1) throw new CetusError('invalid', `node ${idOrName} is ambiguous (${found.length} matches found)`);
  if (!found[0]) throw new CetusError('notFound', `node ${idOrName} not found`);
  return found[0];
}

export function nodeVerbs(context: Context): NodeVerbs {
  return {
    list: async (_caller, filters) => selectNodes(await context.fleet.nodes(), filters),
    get: async (_caller, idOrName) => findNode(await context.fleet.nodes(), idOrName),
  };
}
