/** The chains this runner knows, by name and version. New jobs take the highest version; old jobs keep theirs. */
import {CetusError} from '../base/errors';
import type {Chain} from './chain';

// Each chain has its own params and services; the engine hands both through without looking.
// eslint-disable-next-line @typescript-eslint/no-explicit-any
export type AnyChain = Chain<any, any>;

export class Registry {
  private readonly chains = new Map<string, Chain>();
  private readonly latest = new Map<string, Chain>();

  constructor(chains: readonly AnyChain[]) {
    for (const chain of chains as readonly Chain[]) {
      const names = chain.steps.map((s) => s.name);
      if (new Set(names).size !== names.length) throw new CetusError('internal', `chain ${chain.name}: two steps of one name`);
      if (!names.length) throw new CetusError('internal', `chain ${chain.name}: no steps`);
      const key = `${chain.name}/${chain.version}`;
      if (this.chains.has(key)) throw new CetusError('internal', `chain ${key} is registered twice`);
      this.chains.set(key, chain);
      if ((this.latest.get(chain.name)?.version ?? -1) < chain.version) this.latest.set(chain.name, chain);
    }
  }

  /** `internal` for an unknown name: a caller's bug, never a user's. */
  current(name: string): Chain {
    const chain = this.latest.get(name);
    if (!chain) throw new CetusError('internal', `no chain ${name}`);
    return chain;
  }

  of(job: {workflow: string; version: number}): Chain | undefined {
    return this.chains.get(`${job.workflow}/${job.version}`);
  }
}
