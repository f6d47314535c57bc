/**
 * What a node must have at all, free or not: as many cpus as a limit names, and the very cpus and memory nodes of a set. Reservations say
 * nothing of that: a limit is a ceiling, of which a part is reserved, and a set is no amount.
 */
import {CetusError} from '../../base/errors';
import {NANO_CPUS_PER_CPU} from '../../base/units';
import type {Hardware} from '../../schema/placement';

/** `cpusetCpus`, `cpusetMems`: as the kernel lists them ("0-3,8"); undefined where the node has not said so. */
export interface NodeHardware { cpus: number; cpusetCpus?: string; cpusetMems?: string }

interface Check {
  lacks(node: NodeHardware, asked: Hardware): boolean;
  /** For a rejection: what the node is without. */
  detail(asked: Hardware): string;
  /** The Engine's words, where no node will do. */
  refusal(asked: Hardware, best: NodeHardware): string;
}

/** In the Engine's order. */
const CHECKS: readonly Check[] = [
  {
    lacks: (node, {nanoCpus}) => nanoCpus < 0 || nanoCpus > node.cpus * NANO_CPUS_PER_CPU,
    detail: ({nanoCpus}) => `${nanoCpus / NANO_CPUS_PER_CPU} cpus`,
    refusal: (_asked, {cpus}) => `range of CPUs is from 0.01 to ${cpus.toFixed(2)}, as there are only ${cpus} CPUs available`,
  },
  {
    lacks: (node, {cpusetCpus}) => !within(cpusetCpus, node.cpusetCpus),
    detail: ({cpusetCpus}) => `cpus numbered ${cpusetCpus}`,
    refusal: ({cpusetCpus}, best) => `Requested CPUs are not available - requested ${cpusetCpus}, available: ${best.cpusetCpus}`,
  },
  {
    lacks: (node, {cpusetMems}) => !within(cpusetMems, node.cpusetMems),
    detail: ({cpusetMems}) => `memory nodes numbered ${cpusetMems}`,
    refusal: ({cpusetMems}, best) => `Requested memory nodes are not available - requested ${cpusetMems}, available: ${best.cpusetMems}`,
  },
];

/** What the node is without, or undefined where it has all of it. */
export function lackingHardware(node: NodeHardware, asked: Hardware | undefined): string | undefined {
  return asked && CHECKS.find((check) => check.lacks(node, asked))?.detail(asked);
}

/** `invalid`, in the Engine's words, where none of these nodes has what is asked: waiting helps nobody then. The one with the most cpus is named. */
export function refusedByAll(nodes: readonly NodeHardware[], asked: Hardware | undefined): CetusError | undefined {
  if (!asked || nodes.length === 0) return undefined;
  const hopeless = CHECKS.find((check) => nodes.every((node) => check.lacks(node, asked)));
  if (!hopeless) return undefined;
  return new CetusError('invalid', hopeless.refusal(asked, nodes.reduce((most, node) => (node.cpus > most.cpus ? node : most))));
}

/** Lists like "0-2,7"; the kernel's own has neighbours joined, so that each range asked for lies in one of it. */
function within(asked: string, available: string | undefined): boolean {
  if (asked === '' || available === undefined) return true;
  const there = rangesOf(available);
  return rangesOf(asked).every(([from, to]) => there.some(([first, last]) => first <= from && to <= last));
}

function rangesOf(list: string): (readonly [number, number])[] {
  return list.split(',').filter(Boolean).map((part) => {
    const [from, to = from] = part.split('-').map(Number);
    return [from!, to!] as const;
  });
}
