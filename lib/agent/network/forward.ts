/**
 * The way through somebody else's FORWARD and INPUT chains. Docker, ufw and others set their policy to DROP, and a drop in one chain is final
 * whatever ours says; so our bridges are accepted there too, in each backend of iptables that has such a chain, and only there. What crosses
 * between bridges our own table still drops; to the node itself go only questions for names, which our own rules have led to our server.
 * The rules carry our comment. They are written through iptables: a rule of foreign shape would make the owner's iptables refuse the table.
 */
import {readFile} from 'node:fs/promises';
import type {Log} from '../../base/log';
import {tool, tryTool} from './tool';

type Chain = 'FORWARD' | 'INPUT';
export interface ForwardRule { chain: Chain; direction: '-i' | '-o'; bridge: string }

/** Ours, out of `iptables -S`. Pure. */
export function ourRules(listing: string, comment: string): ForwardRule[] {
  return listing.split('\n').flatMap(line => {
    if (!line.includes(`--comment "${comment}"`)) return [];
    const match = /^-A (FORWARD|INPUT) (-i|-o) (\S+) /.exec(line);
    return match ? [{chain: match[1] as Chain, direction: match[2] as '-i' | '-o', bridge: match[3]!}] : [];
  });
}

/** Rules to insert and to delete, so that exactly these bridges pass. Pure. */
export function difference(present: ForwardRule[], bridges: string[], chains: readonly Chain[] = ['FORWARD', 'INPUT']): {insert: ForwardRule[]; remove: ForwardRule[]} {
  const text = (rule: ForwardRule): string => `${rule.chain} ${rule.direction} ${rule.bridge}`;
  const wanted = bridges.flatMap((bridge): ForwardRule[] => [
    {chain: 'FORWARD', direction: '-i', bridge}, {chain: 'FORWARD', direction: '-o', bridge}, {chain: 'INPUT', direction: '-i', bridge},
  ]).filter(rule => chains.includes(rule.chain));
  const have = new Set(present.map(text));
  const want = new Set(wanted.map(text));
  return {insert: wanted.filter(rule => !have.has(text(rule))), remove: present.filter(rule => !want.has(text(rule)))};
}

export class ForwardAccess {
  private queue: Promise<unknown> = Promise.resolve();

  constructor(private readonly comment: string, private readonly log: Log) {}

  /** Makes it so that exactly these bridges pass. Repeatable; a machine without iptables needs nothing. */
  sync(bridges: () => string[]): Promise<void> {
    const next = this.queue.then(() => this.apply(bridges()));
    this.queue = next.catch(() => undefined);
    return next;
  }

  private async apply(bridges: string[]): Promise<void> {
    for (const {command, chains} of await this.backends()) {
      const {insert, remove} = difference(ourRules(await tool(command, ['-w', '5', '-S']), this.comment), bridges, chains);
      for (const rule of insert) await tool(command, ['-w', '5', '-I', ...this.words(rule)]);
      for (const rule of remove) await tryTool(command, ['-w', '5', '-D', ...this.words(rule)]);
      if (insert.length || remove.length) this.log.info({command, insert, remove}, 'the host\'s FORWARD and INPUT chains adjusted');
    }
  }

  private words({chain, direction, bridge}: ForwardRule): string[] {
    const match = chain === 'INPUT' ? ['-m', 'conntrack', '--ctstate', 'DNAT', '--ctorigdstport', '53'] : [];
    return [chain, direction, bridge, ...match, '-m', 'comment', '--comment', this.comment, '-j', 'ACCEPT'];
  }

  /** The iptables programs that have such chains, and which. Asking iptables itself would create them. */
  private async backends(): Promise<{command: string; chains: Chain[]}[]> {
    const found: {command: string; chains: Chain[]}[] = [];
    const chains: Chain[] = [];
    for (const chain of ['FORWARD', 'INPUT'] as const)
      if ((await tryTool('nft', ['list', 'chain', 'ip', 'filter', chain])).code === 0) chains.push(chain);
    if (chains.length) found.push({command: await this.program('iptables-nft'), chains});
    const legacy = await readFile('/proc/net/ip_tables_names', 'utf8').catch(() => '');
    if (legacy.split('\n').includes('filter')) found.push({command: await this.program('iptables-legacy'), chains: ['FORWARD', 'INPUT']});
    return found.filter(({command}) => command);
  }

  private async program(name: string): Promise<string> {
    for (const command of [name, 'iptables']) {
      const answer = await tryTool(command, ['-V']).catch(() => undefined);
      const kind = answer?.output.includes('nf_tables') ? 'iptables-nft' : 'iptables-legacy';
      if (answer?.code === 0 && kind === name) return command;
    }
    this.log.warn({program: name}, 'the host has a FORWARD chain and no program to change it; containers may not reach other networks');
    return '';
  }
}
