/**
 * The way through somebody else's FORWARD chain. Docker, ufw and others set its policy to DROP, and a drop in one chain is final whatever ours
 * says; so our bridges are accepted there too, in each backend of iptables that has such a chain, and only there. What crosses between bridges our
 * own table still drops. The rules carry our comment; they are written through iptables, because a rule of foreign shape would make
 * the owner's iptables refuse the table.
 */
import {readFile} from 'node:fs/promises';
import type {Log} from '../../base/log';
import {tool, tryTool} from './tool';

export interface ForwardRule { direction: '-i' | '-o'; bridge: string }

/** Ours, out of `iptables -S FORWARD`. Pure. */
export function ourRules(listing: string, comment: string): ForwardRule[] {
  return listing.split('\n').flatMap(line => {
    if (!line.includes(`--comment "${comment}"`)) return [];
    const match = /^-A FORWARD (-i|-o) (\S+) /.exec(line);
    return match ? [{direction: match[1] as '-i' | '-o', bridge: match[2]!}] : [];
  });
}

/** Rules to insert and to delete, so that exactly these bridges pass. Pure. */
export function difference(present: ForwardRule[], bridges: string[]): {insert: ForwardRule[]; remove: ForwardRule[]} {
  const text = (rule: ForwardRule): string => `${rule.direction} ${rule.bridge}`;
  const wanted = bridges.flatMap((bridge): ForwardRule[] => [{direction: '-i', bridge}, {direction: '-o', bridge}]);
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
    for (const command of await this.backends()) {
      const {insert, remove} = difference(ourRules(await tool(command, ['-w', '5', '-S', 'FORWARD']), this.comment), bridges);
      for (const rule of insert) await tool(command, ['-w', '5', '-I', 'FORWARD', ...this.words(rule)]);
      for (const rule of remove) await tryTool(command, ['-w', '5', '-D', 'FORWARD', ...this.words(rule)]);
      if (insert.length || remove.length) this.log.info({command, insert, remove}, 'FORWARD chain of the host adjusted');
    }
  }

  private words(rule: ForwardRule): string[] {
    return [rule.direction, rule.bridge, '-m', 'comment', '--comment', this.comment, '-j', 'ACCEPT'];
  }

  /** The iptables programs whose FORWARD chain exists. Asking iptables itself would create the chain. */
  private async backends(): Promise<string[]> {
    const found: string[] = [];
    const nft = await tryTool('nft', ['list', 'chain', 'ip', 'filter', 'FORWARD']);
    if (nft.code === 0) found.push(await this.program('iptables-nft'));
    const legacy = await readFile('/proc/net/ip_tables_names', 'utf8').catch(() => '');
    if (legacy.split('\n').includes('filter')) found.push(await this.program('iptables-legacy'));
    return found.filter(Boolean);
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
