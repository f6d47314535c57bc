/**
 * JSON with the Engine's words for what is wrong with it. Well-formed text takes the short way through JSON.parse; only what that refuses is
 * read again, character by character, to say where it breaks, in the words of Go's scanner: clients and people compare them. Pure.
 */

/** Where a text ends too early, and where something follows its value: Go says other words of a stream than of a value. */
export interface JsonWords { cut: string; rest: (text: string, at: number) => string }
const VALUE: JsonWords = {cut: 'unexpected end of JSON input', rest: (text, at) => `invalid character ${quoted(text, at)} after top-level value`};
export const STREAM: JsonWords = {cut: 'unexpected EOF', rest: () => 'unexpected content after JSON'};

const DEEPEST = 10_000;
const SPACE = /[ \t\r\n]/;

/** JSON.parse whose error is a SyntaxError in those words. */
export function parseJson(text: string, words = VALUE): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (err) {
    throw new SyntaxError(new Scanner(text, words).why(), {cause: err});
  }
}

/** A character as Go quotes it. Go sees bytes where JavaScript sees code units. */
function quoted(text: string, at: number): string {
  const unit = text[at]!;
  if (unit === "'") return "'\\''";
  if (unit === '"') return "'\"'";
  const byte = unit > '\x7f' ? String.fromCharCode(Buffer.from(text.slice(at, at + 2))[0]!) : unit;
  return `'${JSON.stringify(byte).slice(1, -1).replace(/^\\u00([0-9a-f]{2})$/, '\\x$1')}'`;
}

class Scanner {
  private at = 0;

  constructor(private readonly text: string, private readonly words: JsonWords) {}

  why(): string {
    try {
      this.value(0);
      this.space();
      return this.words.rest(this.text, this.at);
    } catch (err) {
      return err instanceof RangeError ? 'exceeded max depth' : (err as Error).message;
    }
  }

  private space(): void {
    while (this.at < this.text.length && SPACE.test(this.text[this.at]!)) this.at += 1;
  }

  private fail(where: string): never {
    throw new SyntaxError(this.at >= this.text.length ? this.words.cut : `invalid character ${quoted(this.text, this.at)} ${where}`);
  }

  private value(depth: number): void {
    if (depth > DEEPEST) throw new SyntaxError('exceeded max depth');
    this.space();
    const c = this.text[this.at];
    if (c === '{') return this.object(depth);
    if (c === '[') return this.array(depth);
    if (c === '"') return this.string();
    if (c === 't') return this.literal('true');
    if (c === 'f') return this.literal('false');
    if (c === 'n') return this.literal('null');
    if (c !== undefined && /[-0-9]/.test(c)) return this.number();
    this.fail('looking for beginning of value');
  }

  private object(depth: number): void {
    this.at += 1;
    this.space();
    if (this.text[this.at] === '}') return void (this.at += 1);
    for (;;) {
      this.space();
      if (this.text[this.at] !== '"') this.fail('looking for beginning of object key string');
      this.string();
      this.space();
      if (this.text[this.at] !== ':') this.fail('after object key');
      this.at += 1;
      this.value(depth + 1);
      this.space();
      const c = this.text[this.at];
      if (c !== ',' && c !== '}') this.fail('after object key:value pair');
      this.at += 1;
      if (c === '}') return;
    }
  }

  private array(depth: number): void {
    this.at += 1;
    this.space();
    if (this.text[this.at] === ']') return void (this.at += 1);
    for (;;) {
      this.value(depth + 1);
      this.space();
      const c = this.text[this.at];
      if (c !== ',' && c !== ']') this.fail('after array element');
      this.at += 1;
      if (c === ']') return;
    }
  }

  private string(): void {
    for (this.at += 1; ; this.at += 1) {
      const c = this.text[this.at];
      if (c === '"') return void (this.at += 1);
      if (c === undefined || c < ' ') this.fail('in string literal');
      if (c === '\\') this.escape();
    }
  }

  private escape(): void {
    this.at += 1;
    const c = this.text[this.at];
    if (c === undefined || !'bfnrt\\/"u'.includes(c)) this.fail('in string escape code');
    for (let digits = 0; c === 'u' && digits < 4; digits += 1) {
      this.at += 1;
      if (!/[0-9a-fA-F]/.test(this.text[this.at] ?? '')) this.fail('in \\u hexadecimal character escape');
    }
  }

  private literal(word: string): void {
    for (const [n, letter] of [...word].entries()) {
      if (this.text[this.at] !== letter) this.fail(n === 0 ? 'looking for beginning of value' : `in literal ${word} (expecting '${letter}')`);
      this.at += 1;
    }
  }

  private digits(where: string): void {
    if (!/[0-9]/.test(this.text[this.at] ?? '')) this.fail(where);
    while (/[0-9]/.test(this.text[this.at] ?? '')) this.at += 1;
  }

  private number(): void {
    if (this.text[this.at] === '-') this.at += 1;
    if (this.text[this.at] === '0') this.at += 1;
    else this.digits('in numeric literal');
    if (this.text[this.at] === '.') {
      this.at += 1;
      this.digits('after decimal point in numeric literal');
    }
    if (/[eE]/.test(this.text[this.at] ?? '')) {
      this.at += 1;
      if (/[-+]/.test(this.text[this.at] ?? '')) this.at += 1;
      this.digits('in exponent of numeric literal');
    }
  }
}
