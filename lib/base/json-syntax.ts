/** What is wrong with a JSON text, in the words of the decoder behind the Engine: clients and people compare them. Pure. */

/** V8's message -> what Go's decoder was looking for. */
const LOOKING_FOR: readonly [RegExp, string][] = [
  [/^Expected (property name|double-quoted property name)/, 'looking for beginning of object key string'],
  [/^Expected ':' after property name/, 'after object key'],
  [/^Expected ',' or '}'/, 'after object key:value pair'],
  [/^Expected ',' or ']'/, 'after array element'],
  [/control character in string/, 'in string literal'],
  [/^Bad escaped character|^Bad Unicode escape/, 'in string escape code'],
  [/^Unexpected non-whitespace character after JSON/, 'after top-level value'],
];

/** `cut`: the words for a text that ends too early; Go has two, for a stream and for a value. */
export function jsonSyntax(err: unknown, text: string, cut = 'unexpected EOF'): string {
  const message = (err as Error).message;
  // Of short texts V8 shows the character, of long ones its place.
  const position = /at position (\d+)/.exec(message)?.[1];
  const character = /^Unexpected token '(.)'/su.exec(message)?.[1] ?? (position === undefined ? undefined : text[Number(position)]);
  if (/^Unexpected end|^Unterminated/.test(message) || character === undefined) return cut;
  const found = LOOKING_FOR.find(([pattern]) => pattern.test(message));
  return `invalid character ${character === "'" ? "'\\''" : `'${character}'`} ${found?.[1] ?? 'looking for beginning of value'}`;
}

/** JSON.parse whose error is a SyntaxError in those words. */
export function parseJson(text: string, cut?: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (err) {
    throw new SyntaxError(jsonSyntax(err, text, cut), {cause: err});
  }
}
