/** What is provisioned: containers as `docker run -d --restart always -m 64m` makes them, ten on a network of their own, as a compose project has it. */
import {Docker} from './docker';
import {inParallel} from './measure';

/** `projects`: a network for each ten; `bridge`: all on the account's default network; `none`: without one. */
export type Networks = 'projects' | 'bridge' | 'none';

const PER_PROJECT = 10;
const IMAGE = 'busybox';

export class Workload {
  readonly ids: string[] = [];
  private made = 0;
  private projects = 0;

  constructor(readonly docker: Docker, readonly networks: Networks, private readonly clients: number) {}

  async pull(): Promise<void> {
    await this.docker.call('POST', `/images/create?fromImage=${IMAGE}&tag=latest`);
  }

  /** For the next `count` containers. */
  async prepare(count: number): Promise<string[]> {
    if (this.networks !== 'projects') return Array.from({length: count}, () => this.networks);
    const from = this.projects;
    this.projects += Math.ceil(count / PER_PROJECT);
    await inParallel(this.projects - from, this.clients, (n) => this.docker.call('POST', '/networks/create', {Name: `project-${from + n}`}));
    return Array.from({length: count}, (_, n) => `project-${from + Math.floor(n / PER_PROJECT)}`);
  }

  /** Answers the milliseconds of each, create and start together. */
  async provision(networks: readonly string[], labels: Record<string, string> = {}): Promise<{samples: number[]; ids: string[]}> {
    const ids: string[] = [];
    const from = this.made;
    this.made += networks.length;
    const samples = await inParallel(networks.length, this.clients, async (n) => {
      ids.push(await this.docker.run(`c-${from + n}`, {
        Image: IMAGE, Cmd: ['sleep', '1000000'], Labels: labels,
        HostConfig: {NetworkMode: networks[n], Memory: 64 * 2 ** 20, RestartPolicy: {Name: 'always'}, LogConfig: {Type: 'none', Config: {}}},
      }));
    });
    this.ids.push(...ids);
    return {samples, ids};
  }
}
