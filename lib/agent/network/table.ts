/**
 * Our nftables table in the kernel: changed element by element through an open `nft -i`, replaced as a whole where it is missing or somebody
 * flushed it. Changes go in order, each a transaction.
 */
import type {Log} from '../../base/log';
import {nftCoprocess} from './coprocess';
import {networkingFailed} from './failures';
import {type RulesView, tableText} from './rules';
import {tool, tryTool} from './tool';

/** `nft -i` reads by line; longer transactions go through a process of their own. */
const MAX_LINE = 16_000;

export class RuleTable {
  private readonly nft = nftCoprocess();

  constructor(private readonly name: string, private readonly view: () => RulesView, private readonly log: Log) {}

  /** From the records alone. Connections that are open stay open. */
  async replace(): Promise<void> {
    await tool('nft', ['-f', '-'], tableText(this.name, this.view()));
  }

  /**
   * One transaction; where the table is gone it is made anew, the records (which hold the change already) being the truth. `tolerant`: each command
   * by itself, and what is missing is no error.
   */
  async run(commands: string[], mode: 'strict' | 'tolerant' = 'strict'): Promise<void> {
    if (commands.length === 0) return;
    if (mode === 'tolerant') {
      await this.nft.run(commands);
      return;
    }
    const line = commands.join('; ');
    const output = line.length > MAX_LINE ? (await tryTool('nft', ['-f', '-'], commands.join('\n'))).errors : await this.nft.run([line]);
    if (!/^Error:/m.test(output)) return;
    this.log.warn({output}, 'a change of rules was refused; the table is made anew');
    await this.replace().catch((err: unknown) => { throw networkingFailed(`nft: ${output.trim()}`, {cause: err}); });
  }

  /** Makes the table anew where somebody flushed or deleted it. */
  async check(): Promise<void> {
    const chain = await tryTool('nft', ['list', 'chain', 'ip', this.name, 'forwarding']);
    const whole = chain.code === 0 && chain.output.includes('ct status dnat');
    if (whole && (!this.view().tunnels || (await tryTool('nft', ['list', 'chain', 'bridge', this.name, 'crossing'])).output.includes('jump out_of_tunnel'))) return;
    this.log.warn('our nftables table was flushed or deleted; it is made anew');
    await this.replace();
  }

  close(): void {
    this.nft.end();
  }
}
