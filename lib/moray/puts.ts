/**
 * Puts that follow each other in one bucket, as one statement: of ten, nine parses, binds and answers less. The bucket's function is called for each in their
 * order, as it would be by statements of their own; one that fails takes the whole transaction with it, as ever.
 */
import type {BatchOp} from './moray';
import type {Row, Statement} from './pipeline';
import {writer} from './store';

/** Of a statement's values together, in characters: the array is parsed as a whole before the first is written. */
const MAX_LENGTH = 1 << 20;

/** What is sent in place of a statement per operation. Statement i stands for `counts[i]` of them, of which `ops[i]` is the first. */
export interface Joined { statements: Statement[]; counts: number[]; ops: BatchOp[] }

/** `statements[i]` is that of `ops[i]`; a put's values are key, JSON, mode and etag. */
export function joinPuts(ops: readonly BatchOp[], statements: Statement[]): Joined {
  const joined: Joined = {statements: [], counts: [], ops: []};
  for (let at = 0; at < ops.length; at += joined.counts.at(-1)!) {
    const count = runLength(ops, statements, at);
    joined.statements.push(count === 1 ? statements[at]! : together(ops[at]!.bucket, statements.slice(at, at + count)));
    joined.counts.push(count);
    joined.ops.push(ops[at]!);
  }
  return joined;
}

/** The answers as if each operation had had a statement of its own. */
export function apart(rows: Row[][], {counts}: Joined): Row[][] {
  return rows.flatMap((answer, n) => (counts[n] === 1 ? [answer] : answer.map((row) => [row])));
}

function runLength(ops: readonly BatchOp[], statements: Statement[], at: number): number {
  const {op, bucket} = ops[at]!;
  if (op !== 'put') return 1;
  let count = 0;
  for (let length = 0; at + count < ops.length; count += 1) {
    const next = ops[at + count]!;
    if (next.op !== 'put' || next.bucket !== bucket) break;
    length += statements[at + count]!.values[1]!.length;
    if (count > 0 && length > MAX_LENGTH) break;
  }
  return count;
}

function together(bucket: string, puts: Statement[]): Statement {
  const column = (n: number): (string | null)[] => puts.map(({values}) => values[n]!);
  return {
    name: `puts_${bucket}`,
    // An array of JSON is joined and parsed without the quoting that an array of texts wants.
    text: `SELECT ${writer(bucket, 'put')}(k, v, m, e) FROM ROWS FROM (unnest($1::text[]), jsonb_array_elements($2::jsonb), unnest($3::integer[]), unnest($4::bigint[])) AS puts (k, v, m, e)`,
    values: [arrayOf(column(0)), `[${column(1).join(',')}]`, arrayOf(column(2)), arrayOf(column(3))],
  };
}

/** An array in Postgres' text form. */
function arrayOf(values: (string | null)[]): string {
  return `{${values.map((value) => (value === null ? 'NULL' : `"${value.replace(/["\\]/g, '\\$&')}"`)).join(',')}}`;
}
