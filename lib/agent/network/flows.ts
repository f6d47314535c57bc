/**
 * Makes the kernel forget what it remembers of UDP conversations with a published port. A client that never pauses keeps its entry alive, and the
 * entry leads to where the port led when the conversation began: to a container that is gone, or past the one that has come. TCP needs
 * nothing: its connections end with the container.
 */
import type {Log} from '../../base/log';
import type {Publication} from './rules';
import {tryTool} from './tool';

export class Flows {
  private missing = false;

  constructor(private readonly log: Log) {}

  /** Never fails: without the tool conversations heal when the client pauses for 30 s. */
  async forget(publications: Publication[]): Promise<void> {
    const ports = new Set(publications.filter(p => p.protocol === 'udp').map(p => p.hostPort));
    if (this.missing) return;
    await Promise.all([...ports].map(async port => {
      try {
        // Exit code 1 means that there was none.
        await tryTool('conntrack', ['-D', '-p', 'udp', '--orig-port-dst', String(port)]);
      } catch (err) {
        this.missing = true;
        this.log.warn({err}, 'conntrack cannot be run: UDP clients that never pause do not find a published port again after its container restarts');
      }
    }));
  }
}
