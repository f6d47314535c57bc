/**
 * What of a create request the operator must have allowed, and what is refused by name (promise 6 of the design: no silent option): the
 * tables of lib/schema/options, by which the edge has decoded the request, checked once more for whoever calls the verb without it.
 */
import {CetusError} from '../../base/errors';
import {CONFIG, HOST_CONFIG} from '../../schema/options/container';
import {type Disposition, type PolicyField, asksNothing, isNeutral, settingOf} from '../../schema/options/field';
import type {DatacenterConfig} from '../context';

export {asksNothing};

export const unsupported = (option: string, why: string): CetusError => new CetusError('unsupported', `${option} is not supported: ${why}`, {info: {option}});

export function gate(option: string, by: PolicyField, config: DatacenterConfig): void {
  const allowed = by === 'allowBinds' ? config.allowBinds !== 'off' : config[by];
  if (!allowed) throw forbidden(option, `refused by ${settingOf(by, by === 'allowBinds' ? 'off' : undefined)}`);
}

/** Refused by whoever runs the datacenter, and by which of their settings: the reader can turn to them, or is them. */
export const forbidden = (option: string, why: string): CetusError => new CetusError('forbidden', `${option} is not allowed on this datacenter: ${why}`, {info: {option}});

export function checkOption(option: string, disposition: Disposition | undefined, value: unknown, config: DatacenterConfig): void {
  if (asksNothing(value)) return;
  if (!disposition) throw unsupported(option, 'it is unknown to this version');
  switch (disposition.is) {
    case 'honoured': case 'ignored': return;
    case 'gated': return gate(option, disposition.by, config);
    case 'refused':
      if (!isNeutral(disposition, value)) throw unsupported(disposition.neutral ? `${option} ${JSON.stringify(value)}` : option, disposition.why);
  }
}

/** The row of a field, by its name in the API's own spelling. */
export const rowOf = (where: 'Config' | 'HostConfig', name: string): Disposition | undefined => {
  const {fields} = where === 'Config' ? CONFIG : HOST_CONFIG;
  return Object.hasOwn(fields, name) ? fields[name]!.disposition : undefined;
};

export function checkOptions(where: 'Config' | 'HostConfig', given: object, config: DatacenterConfig): void {
  for (const [name, value] of Object.entries(given)) {
    if (where === 'Config' && (name === 'HostConfig' || name === 'NetworkingConfig')) continue;
    checkOption(where === 'Config' ? name : `${where}.${name}`, rowOf(where, name), value, config);
  }
}
