/**
 * Placement hints as Swarm classic took them: entries of Env and two labels. They are stripped from Env, so that the process does not see
 * them, and kept in the labels, so that the container can be placed again.
 */
import {CetusError} from '../../base/errors';
import type {Config} from '../../schema/docker';

const LABELS = {affinity: 'com.docker.swarm.affinities', constraint: 'com.docker.swarm.constraints'} as const;
const IN_ENV = /^(affinity|constraint):/;

export function takeHints(config: Config): {config: Config; expressions: string[]} {
  const env = config.Env ?? [];
  const fromEnv = env.filter((e) => IN_ENV.test(e));
  const expressions = [...fromEnv];
  for (const kind of ['affinity', 'constraint'] as const) {
    const text = config.Labels?.[LABELS[kind]];
    if (text === undefined) continue;
    let list: unknown;
    try {
      list = JSON.parse(text);
    } catch (err) {
      throw new CetusError('invalid', `label ${LABELS[kind]} is not a JSON array of strings`, {cause: err});
    }
    if (!Array.isArray(list) || list.some((e) => typeof e !== 'string')) throw new CetusError('invalid', `label ${LABELS[kind]} is not a JSON array of strings`);
    for (const e of list as string[]) expressions.push(`${kind}:${e}`);
  }
  if (fromEnv.length === 0) return {config, expressions: [...new Set(expressions)]};
  // As Swarm did: hints given through Env move into the labels.
  const labels = {...config.Labels};
  for (const kind of ['affinity', 'constraint'] as const) {
    const own = [...new Set(expressions)].filter((e) => e.startsWith(`${kind}:`)).map((e) => e.slice(kind.length + 1));
    if (own.length > 0) labels[LABELS[kind]] = JSON.stringify(own);
  }
  return {config: {...config, Env: env.filter((e) => !IN_ENV.test(e)), Labels: labels}, expressions: [...new Set(expressions)]};
}
