/**
 * Words, globs and regular expressions that people write (placement expressions, list filters), matched in time linear in the subject
 * whatever the pattern: it is compiled to a nondeterministic automaton whose states are walked together. Refuses (`invalid`) what it does not
 * know: groups may be nested and repeated, but there are no look-arounds, back-references or counted repetitions. Case counts.
 */
import {CetusError} from './errors';

type Accepts = (char: string) => boolean;
type Instruction = {op: 'char'; accepts: Accepts} | {op: 'split'; a: number; b: number} | {op: 'jump'; to: number} | {op: 'start'} | {op: 'end'} | {op: 'match'};

const MAX_PATTERN = 256;
const CLASSES: Record<string, RegExp> = {d: /\d/, D: /\D/, w: /\w/, W: /\W/, s: /\s/, S: /\S/};

class Compiler {
  private at = 0;
  readonly program: Instruction[] = [];

  constructor(private readonly source: string) {
    if (source.length > MAX_PATTERN) throw new CetusError('invalid', `pattern is longer than ${MAX_PATTERN} characters`);
    this.alternatives();
    if (this.at < source.length) this.fail('unmatched )');
    this.program.push({op: 'match'});
  }

  private fail(why: string): never {
    throw new CetusError('invalid', `invalid regular expression /${this.source}/: ${why}`);
  }

  private alternatives(): void {
    const start = this.program.length;
    this.sequence();
    while (this.source[this.at] === '|') {
      this.at += 1;
      // A split goes before what is already there, so what is there moves by one.
      this.insert(start, {op: 'split', a: start + 1, b: this.program.length + 2});
      const jump = this.program.push({op: 'jump', to: 0}) - 1;
      this.sequence();
      this.program[jump] = {op: 'jump', to: this.program.length};
    }
  }

  private sequence(): void {
    while (this.at < this.source.length && this.source[this.at] !== '|' && this.source[this.at] !== ')') this.repeated();
  }

  private repeated(): void {
    const start = this.program.length;
    this.atom();
    const sign = this.source[this.at];
    if (sign !== '*' && sign !== '+' && sign !== '?') {
      if (sign === '{') this.fail('counted repetition is not supported');
      return;
    }
    this.at += 1;
    if (this.source[this.at] === '?') this.at += 1; // lazy or greedy: the same answer to "does it match"
    if (sign === '+') {
      this.program.push({op: 'split', a: start, b: this.program.length + 1});
      return;
    }
    this.insert(start, {op: 'split', a: start + 1, b: this.program.length + (sign === '*' ? 2 : 1)});
    if (sign === '*') this.program.push({op: 'jump', to: start});
  }

  private insert(at: number, instruction: Instruction): void {
    const moved = (to: number): number => (to >= at ? to + 1 : to);
    for (let i = at; i < this.program.length; i += 1) {
      const old = this.program[i]!;
      if (old.op === 'split') this.program[i] = {op: 'split', a: moved(old.a), b: moved(old.b)};
      else if (old.op === 'jump') this.program[i] = {op: 'jump', to: moved(old.to)};
    }
    this.program.splice(at, 0, instruction);
  }

  private atom(): void {
    const char = this.source[this.at]!;
    this.at += 1;
    switch (char) {
      case '(':
        if (this.source[this.at] === '?') {
          if (this.source[this.at + 1] !== ':') this.fail('look-arounds and named groups are not supported');
          this.at += 2;
        }
        this.alternatives();
        if (this.source[this.at] !== ')') this.fail('missing )');
        this.at += 1;
        return;
      case '[':
        return this.set();
      case '.':
        return this.char(() => true);
      case '^':
        this.program.push({op: 'start'});
        return;
      case '$':
        this.program.push({op: 'end'});
        return;
      case '*': case '+': case '?':
        return this.fail('nothing to repeat');
      case '\\':
        return this.char(this.escape());
      default:
        return this.char((c) => c === char);
    }
  }

  private char(accepts: Accepts): void {
    this.program.push({op: 'char', accepts});
  }

  private escape(): Accepts {
    const char = this.source[this.at];
    if (char === undefined) this.fail('a lone \\ at the end');
    this.at += 1;
    const known = CLASSES[char];
    if (known) return (c) => known.test(c);
    if (/[a-zA-Z0-9]/.test(char)) this.fail(`unknown escape \\${char}`);
    return (c) => c === char;
  }

  private set(): void {
    const negated = this.source[this.at] === '^';
    if (negated) this.at += 1;
    const parts: Accepts[] = [];
    for (let first = true; first || this.source[this.at] !== ']'; first = false) {
      const low = this.source[this.at];
      if (low === undefined) this.fail('missing ]');
      this.at += 1;
      if (low === '\\') {
        parts.push(this.escape());
      } else if (this.source[this.at] === '-' && this.source[this.at + 1] !== ']' && this.source[this.at + 1] !== undefined) {
        const high = this.source[this.at + 1]!;
        if (high < low) this.fail('range out of order');
        this.at += 2;
        parts.push((c) => c >= low && c <= high);
      } else {
        parts.push((c) => c === low);
      }
    }
    this.at += 1;
    this.char((c) => parts.some((p) => p(c)) !== negated);
  }
}

function run(program: readonly Instruction[], subject: string): boolean {
  let current = new Set<number>();
  // Follows what consumes nothing; says whether the match was reached.
  const add = (set: Set<number>, first: number, position: number): boolean => {
    const stack = [first];
    for (let pc = stack.pop(); pc !== undefined; pc = stack.pop()) {
      if (set.has(pc)) continue;
      set.add(pc);
      const i = program[pc]!;
      if (i.op === 'match') return true;
      if (i.op === 'jump') stack.push(i.to);
      else if (i.op === 'split') stack.push(i.b, i.a);
      else if (i.op === 'start' && position === 0) stack.push(pc + 1);
      else if (i.op === 'end' && position === subject.length) stack.push(pc + 1);
    }
    return false;
  };
  for (let position = 0; position <= subject.length; position += 1) {
    if (add(current, 0, position)) return true; // unanchored: a match may begin anywhere
    if (position === subject.length) break;
    const next = new Set<number>();
    for (const pc of current) {
      const i = program[pc]!;
      if (i.op === 'char' && i.accepts(subject[position]!) && add(next, pc + 1, position + 1)) return true;
    }
    current = next;
  }
  return false;
}

export interface Pattern {
  /** The word itself, where the pattern is one: it can be looked up. */
  exact?: string;
  matches(subject: string): boolean;
}

/** `/expression/`, a glob with * and ?, or a plain word. */
export function compilePattern(value: string): Pattern {
  if (value.length >= 2 && value.startsWith('/') && value.endsWith('/')) {
    const {program} = new Compiler(value.slice(1, -1));
    return {matches: (subject) => run(program, subject)};
  }
  if (!/[*?]/.test(value)) return {exact: value, matches: (subject) => subject === value};
  const source = value.replace(/[.+^$()[\]{}|\\/]/g, '\\$&').replace(/\*/g, '.*').replace(/\?/g, '.');
  const {program} = new Compiler(`^${source}$`);
  return {matches: (subject) => run(program, subject)};
}
