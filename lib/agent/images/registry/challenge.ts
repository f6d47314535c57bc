/**
 * WWW-Authenticate, parsed (RFC 9110 section 11). Takes whatever a stranger sends: never throws, leaves out what it cannot read.
 * Several challenges may share one header; parameter names and schemes are given in lower case.
 */
export interface Challenge { scheme: string; parameters: Record<string, string> }

const MAX_HEADER_LENGTH = 8192;
const TOKEN = /[!#$%&'*+\-.^_`|~0-9A-Za-z]+/y;
const TOKEN68 = /[A-Za-z0-9\-._~+/]+=*(?=\s*(?:,|$))/y;

export function parseChallenges(headers: string | string[] | undefined): Challenge[] {
  const list = headers === undefined ? [] : Array.isArray(headers) ? headers : [headers];
  return list.flatMap((header) => parseOne(header.slice(0, MAX_HEADER_LENGTH)));
}

function parseOne(text: string): Challenge[] {
  const challenges: Challenge[] = [];
  let position = 0;
  const take = (pattern: RegExp): string | undefined => {
    pattern.lastIndex = position;
    const match = pattern.exec(text);
    if (!match) return undefined;
    position += match[0].length;
    return match[0];
  };
  const separators = /[\s,]*/y;
  for (take(separators); position < text.length; take(separators)) {
    const scheme = take(TOKEN);
    if (scheme === undefined) {
      position += 1;
      continue;
    }
    const challenge: Challenge = {scheme: scheme.toLowerCase(), parameters: {}};
    challenges.push(challenge);
    take(/\s+/y);
    if (take(TOKEN68) !== undefined) continue;
    for (;;) {
      const before = position;
      take(separators);
      const name = take(TOKEN);
      // A word without "=" is the scheme of the next challenge.
      if (name === undefined || take(/\s*=\s*/y) === undefined) {
        position = before;
        break;
      }
      const value = quoted(text, position);
      if (value) position = value.end;
      const plain = value ? value.text : take(/[^\s,"]*/y) ?? '';
      // First one wins, and "__proto__" is a name like any other.
      if (!Object.hasOwn(challenge.parameters, name.toLowerCase()))
        Object.defineProperty(challenge.parameters, name.toLowerCase(), {value: plain, enumerable: true, configurable: true, writable: true});
    }
  }
  return challenges;
}

function quoted(text: string, start: number): {text: string; end: number} | undefined {
  if (text[start] !== '"') return undefined;
  let value = '';
  for (let i = start + 1; i < text.length; i += 1) {
    if (text[i] === '\\' && i + 1 < text.length) value += text[i += 1];
    else if (text[i] === '"') return {text: value, end: i + 1};
    else value += text[i];
  }
  return {text: value, end: text.length};
}
