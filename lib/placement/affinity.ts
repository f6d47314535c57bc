/**
 * Parses placement expressions (Swarm classic's syntax, see README.md). Refuses with `invalid` and Swarm's own words; an expression that
 * cannot be understood is never ignored.
 */
import {CetusError} from '../base/errors';
import {compilePattern, type Pattern} from '../base/pattern';

export interface Expression {
  /** As the person wrote it: rejections name it. */
  text: string;
  kind: 'constraint' | 'affinity';
  key: string;
  negated: boolean;
  soft: boolean;
  pattern: Pattern;
}

const SHAPE = /^(constraint|affinity):(.*?)(==|!=)(~?)(.*)$/s;
const KEY = /^[a-z_][a-z0-9\-_.]*$/i;
const MAX_EXPRESSION = 1024;

export function parseExpression(text: string): Expression {
  if (text.length > MAX_EXPRESSION) throw new CetusError('invalid', `placement expression is longer than ${MAX_EXPRESSION} characters`);
  const parts = SHAPE.exec(text);
  if (!parts) {
    if (!/^(constraint|affinity):/.test(text)) throw new CetusError('invalid', `invalid placement expression '${text}': it must begin with constraint: or affinity:`);
    throw new CetusError('invalid', `invalid placement expression '${text}': one of operator ==, != is expected`);
  }
  const [, kind, key, operator, soft, value] = parts as unknown as [string, 'constraint' | 'affinity', string, string, string, string];
  if (!KEY.test(key)) throw new CetusError('invalid', `invalid placement expression '${text}': Key '${key}' is invalid`);
  if (value === '') throw new CetusError('invalid', `invalid placement expression '${text}': Value '' is invalid`);
  return {text, kind, key, negated: operator === '!=', soft: soft === '~', pattern: compilePattern(value)};
}

/** Every name by which people call an image: id, short id, and the reference with and without Docker Hub's prefix and the tag. */
export function imageAliases(imageId: string, references: readonly string[]): string[] {
  const hex = imageId.replace(/^sha256:/, '');
  const names = new Set([imageId, hex, hex.slice(0, 12)]);
  for (const reference of references) {
    for (const whole of [reference, reference.replace(/^docker\.io\//, ''), reference.replace(/^docker\.io\/(library\/)?/, '')]) {
      names.add(whole);
      const colon = whole.lastIndexOf(':');
      if (colon > whole.lastIndexOf('/')) names.add(whole.slice(0, colon));
    }
  }
  return [...names];
}
