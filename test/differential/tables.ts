/** The two tables of lib/docker/README.md that the differential test stands for: which operations are asked for, and what differs. Pure. */
import {matchOperation, OPERATIONS} from '../../lib/docker/operations';
import {DIVERGENCES} from './divergences';
import {SCRIPTS} from './index';

const cell = (text: string): string => text.replaceAll('|', '\\|');
/** Those of a container host; the others belong to swarm mode and to plugins. */
export const HOST_OPERATIONS = OPERATIONS.filter(({group}) => group !== 'swarm' && group !== 'plugins');

export const operationOf = (method: string, path: string): string | undefined => matchOperation(method, path.replace(/\?.*$/, ''))?.operation.id;

export function operationsTable(): string {
  const steps = SCRIPTS.flatMap((s) => s.steps);
  const rows = HOST_OPERATIONS.map(({id, method, path}) => {
    const asked = steps.filter((s) => operationOf(s.method, s.path) === id);
    return `| ${id} | \`${method} ${path}\` | ${asked.length} | ${asked.filter((s) => s.mistake).length} |`;
  });
  return ['| operation | | requests | mistakes |', '|---|---|---|---|', ...rows].join('\n');
}

function divergencesTable(): string {
  return ['| what | why |', '|---|---|', ...DIVERGENCES.map(({what, why}) => `| ${cell(what)} | ${cell(why)} |`)].join('\n');
}

const TABLES = {operations: operationsTable, divergences: divergencesTable};

/** The document with both tables as they are now, between their marks. */
export function withTables(document: string): string {
  return Object.entries(TABLES).reduce((text, [name, table]) => {
    const marks = new RegExp(`(<!-- differential ${name} -->\n)[\\s\\S]*?(\n<!-- end -->)`);
    if (!marks.test(text)) throw new Error(`no place for the table of ${name}`);
    return text.replace(marks, (_, before: string, after: string) => `${before}${table()}${after}`);
  }, document);
}
