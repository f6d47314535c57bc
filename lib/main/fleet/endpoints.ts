/** The endpoints of a fleet of test hosts: processes of this machine, each with ports of its own, all with the same store. */
import fs from 'node:fs';
import path from 'node:path';
import type {Log} from '../../base/log';
import type {EndpointConfig} from '../config';
import {cetusChild, type SupervisedChild} from '../up/child';
import type {Part} from '../up/foreground';

export class TestEndpoint {
  private readonly child: SupervisedChild;
  private readonly file: string;
  listen: string[] = [];

  constructor(readonly number: number, private readonly config: EndpointConfig, dir: string, log: Log) {
    this.file = path.join(dir, 'run', `endpoint-${number}.json`);
    this.write();
    this.child = cetusChild('endpoint', this.file, {dir, log, name: `endpoint-${number}`});
  }

  get part(): Part {
    return {name: `endpoint-${this.number}`, pid: () => this.child.pid, stop: () => this.child.stop()};
  }

  async start(): Promise<void> {
    const ready = await this.child.start();
    this.listen = ready.listen as string[];
    // Clients hold the port that a 0 came to.
    this.config.listen = this.listen;
    this.write();
  }

  /** None starts it again. */
  kill(): Promise<void> {
    return this.child.kill();
  }

  private write(): void {
    fs.writeFileSync(this.file, JSON.stringify(this.config, null, 2), {mode: 0o600});
  }
}
