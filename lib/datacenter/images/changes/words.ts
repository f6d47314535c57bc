/**
 * Words of a Dockerfile's lines: how lines become instructions, how a line splits into words, and what quotes and $VARIABLES in a word mean.
 * After the Engine's parser and its shell lexer; pure; texts of errors are theirs. Everything is linear in the length of its input.
 */
import {CetusError} from '../../../base/errors';

export const invalid = (message: string): CetusError => new CetusError('invalid', message);

export interface Instruction { /** upper case */ name: string; flags: string[]; /** without the flags */ rest: string; original: string }

const COMMENT = /^\s*#/;
const CONTINUED = /\\[ \t]*$/;

/** Instructions of a text; comments and empty lines are none, a backslash at a line's end joins the next one to it. */
export function instructions(text: string): Instruction[] {
  const found: Instruction[] = [];
  let line = '';
  for (const raw of text.split('\n')) {
    const next = raw.replace(/\r$/, '');
    if (COMMENT.test(next) || (next.trim() === '' && line === '')) continue;
    if (CONTINUED.test(next)) {
      line += next.replace(CONTINUED, '');
      continue;
    }
    found.push(instruction(line + next));
    line = '';
  }
  if (line.trim() !== '') found.push(instruction(line));
  if (found.length === 0) throw invalid('file with no instructions');
  return found;
}

export function instruction(line: string): Instruction {
  const original = line.trim();
  const name = /^\S+/.exec(original)?.[0] ?? '';
  const {flags, rest} = takeFlags(original.slice(name.length).trim());
  return {name: name.toUpperCase(), flags, rest, original};
}

/** Leading words that begin with two dashes; a word of two dashes alone ends them. */
function takeFlags(text: string): {flags: string[]; rest: string} {
  const flags: string[] = [];
  let rest = text;
  while (rest.startsWith('--')) {
    const word = /^\S+/.exec(rest)![0];
    rest = rest.slice(word.length).trimStart();
    if (word === '--') break;
    flags.push(word.slice(2));
  }
  return {flags, rest};
}

/** By spaces outside of quotes; quotes and backslashes stay in the words, for `expand` to read. */
export function words(text: string): string[] {
  const found: string[] = [];
  let word = '';
  let quote = '';
  for (let i = 0; i < text.length; i += 1) {
    const char = text[i]!;
    if (quote === '' && /\s/.test(char)) {
      if (word !== '') found.push(word);
      word = '';
      continue;
    }
    word += char;
    if (char === '\\' && quote !== '\'' && i + 1 < text.length) word += text[i += 1];
    else if (quote === '' && (char === '"' || char === '\'')) quote = char;
    else if (char === quote) quote = '';
  }
  if (word !== '') found.push(word);
  return found;
}

/** A JSON array of strings, as instructions take it in place of a shell's line; undefined where the text is none. */
export function jsonWords(text: string): string[] | undefined {
  if (!text.trimStart().startsWith('[')) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!Array.isArray(value)) return undefined;
  if (!value.every((item) => typeof item === 'string')) throw invalid('when using JSON array syntax, arrays must be comprised of strings only');
  return value as string[];
}

/** A word with its quotes taken away and its variables put in, by the rules of the Engine's shell lexer. */
export function expand(word: string, env: ReadonlyMap<string, string>): string {
  return new Lexer(word, env).read('');
}

/** As `expand`, into as many words as the values have outside of quotes. */
export function expandWords(word: string, env: ReadonlyMap<string, string>): string[] {
  return words(new Lexer(word, env).read('')).filter((w) => w !== '');
}

const NAME = /[A-Za-z_][A-Za-z0-9_]*/y;
const SPECIAL = /[0-9@*#?$!-]/y;
const MAX_DEPTH = 32;

class Lexer {
  private at = 0;
  private depth = 0;

  constructor(private readonly text: string, private readonly env: ReadonlyMap<string, string>) {}

  read(until: string): string {
    let result = '';
    while (this.at < this.text.length) {
      const char = this.text[this.at]!;
      if (char === until) return result;
      if (char === '\'') result += this.single();
      else if (char === '"') result += this.double();
      else if (char === '$') result += this.variable();
      else if (char === '\\') {
        // The last character of a line stands for itself.
        this.at += 1;
        result += this.at < this.text.length ? this.text[this.at]! : '\\';
        this.at += 1;
      } else {
        result += char;
        this.at += 1;
      }
    }
    if (until !== '') throw invalid(`failed to process ${quoted(this.text)}: syntax error: missing '${until}'`);
    return result;
  }

  private single(): string {
    const end = this.text.indexOf('\'', this.at + 1);
    if (end < 0) throw invalid(`failed to process ${quoted(this.text)}: unexpected end of statement while looking for matching single-quote`);
    const inside = this.text.slice(this.at + 1, end);
    this.at = end + 1;
    return inside;
  }

  private double(): string {
    let result = '';
    for (this.at += 1; this.at < this.text.length;) {
      const char = this.text[this.at]!;
      if (char === '"') {
        this.at += 1;
        return result;
      }
      if (char === '$') result += this.variable();
      else if (char === '\\' && this.at + 1 < this.text.length) {
        // Only what means something within quotes is escaped; every other backslash stays.
        const next = this.text[this.at + 1]!;
        result += '"$\\'.includes(next) ? next : `\\${next}`;
        this.at += 2;
      } else {
        result += char;
        this.at += 1;
      }
    }
    throw invalid(`failed to process ${quoted(this.text)}: unexpected end of statement while looking for matching double-quote`);
  }

  private variable(): string {
    this.at += 1;
    if (this.text[this.at] === '{') return this.braces();
    const name = this.name();
    return name === '' ? '$' : this.env.get(name) ?? '';
  }

  private braces(): string {
    this.at += 1;
    const name = this.name();
    if (name === '') throw invalid(`failed to process ${quoted(this.text)}: bad substitution`);
    const value = this.env.get(name);
    const next = this.text[this.at];
    if (next === '}') {
      this.at += 1;
      return value ?? '';
    }
    const colon = next === ':';
    const operator = this.text[this.at + (colon ? 1 : 0)];
    if (operator === undefined) throw invalid(`failed to process ${quoted(this.text)}: syntax error: missing '}'`);
    if (!'-+?'.includes(operator)) throw invalid(`failed to process ${quoted(this.text)}: unsupported modifier (${(colon ? ':' : '') + operator}) in substitution`);
    this.at += colon ? 2 : 1;
    if ((this.depth += 1) > MAX_DEPTH) throw invalid(`failed to process ${quoted(this.text)}: substitutions are nested too deeply`);
    const word = this.read('}');
    this.depth -= 1;
    this.at += 1;
    const set = colon ? value !== undefined && value !== '' : value !== undefined;
    switch (operator) {
      case '-': return set ? value! : word;
      case '+': return set ? word : '';
      default:
        if (set) return value!;
        throw invalid(`failed to process ${quoted(this.text)}: ${name}: ${word || `is not allowed to be ${colon ? 'unset or empty' : 'unset'}`}`);
    }
  }

  private name(): string {
    for (const pattern of [NAME, SPECIAL]) {
      pattern.lastIndex = this.at;
      const found = pattern.exec(this.text)?.[0];
      if (found === undefined) continue;
      this.at += found.length;
      return found;
    }
    return '';
  }
}

const quoted = (text: string): string => JSON.stringify(text.slice(0, 500));
