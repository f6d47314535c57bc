/** The tables of options for people: Markdown of lib/schema/options and options.ts. Pure; called by tools/render-options.mjs and the test that compares README.md with it. */
import {BODIES} from '../schema/options/bodies';
import {type Disposition, settingOf, type Struct, type Wire} from '../schema/options/field';
import {HEADERS, type Options, QUERIES} from './options';

export const BEGIN = '<!-- options: written by tools/render-options.mjs -->';
export const END = '<!-- options end -->';
const WIDTH = 160;

interface Row { name: string; disposition: Disposition }

const OPERATION: Record<keyof typeof BODIES, string> = {
  containerCreate: 'ContainerCreate', containerUpdate: 'ContainerUpdate', execCreate: 'ContainerExec', execStart: 'ExecStart', imageCommit: 'ImageCommit', systemAuth: 'SystemAuth',
  networkCreate: 'NetworkCreate', networkConnect: 'NetworkConnect', networkDisconnect: 'NetworkDisconnect', volumeCreate: 'VolumeCreate',
};

function below(wire: Wire): Struct | undefined {
  return wire.kind === 'struct' ? wire : wire.kind === 'list' || wire.kind === 'map' ? below(wire.of) : undefined;
}

function rows(struct: Struct, prefix = ''): Row[] {
  return Object.entries(struct.fields).flatMap(([field, {wire, disposition}]): Row[] => {
    const name = `${prefix}${field}`;
    const inner = disposition.is === 'refused' || disposition.is === 'ignored' ? undefined : below(wire);
    return inner ? [...(said(disposition) ? [{name, disposition}] : []), ...rows(inner, `${name}.`)] : [{name, disposition}];
  });
}

/** Is there anything to be said of it but that it is honoured? */
const said = (disposition: Disposition): boolean => disposition.is !== 'honoured' || disposition.note !== undefined;

function words(disposition: Disposition): string {
  switch (disposition.is) {
    case 'honoured': return `honoured: ${disposition.note}`;
    case 'gated': return `refused by ${settingOf(disposition.by)}${disposition.note ? `: ${disposition.note}` : ''}`;
    case 'refused': return `refused${disposition.neutral ? `, but for ${disposition.neutral.map((value) => `\`${String(value)}\``).join(', ')}` : ''}: ${disposition.why}`;
    case 'ignored': return `ignored: ${disposition.why}`;
  }
}

/** Names by what is said of them. */
function grouped(all: Row[]): Map<string, string[]> {
  const by = new Map<string, string[]>();
  for (const {name, disposition} of all) if (said(disposition)) by.set(words(disposition), [...by.get(words(disposition)) ?? [], name]);
  return by;
}

function section(title: string, all: Row[]): string[] {
  const plain = all.filter(({disposition}) => !said(disposition)).map(({name}) => `\`${name}\``);
  const others = grouped(all.map((row) => ({...row, name: `\`${row.name}\``})));
  return [
    `**${title}**`, '',
    ...(plain.length ? [...wrapped(`Honoured: ${plain.join(', ')}.`), ''] : []),
    ...(others.size ? ['| field | |', '|---|---|', ...[...others].map(([text, names]) => `| ${names.join(', ')} | ${text.replaceAll('|', '\\|')} |`), ''] : []),
  ];
}

function wrapped(text: string): string[] {
  const lines = [''];
  for (const word of text.split(' ')) {
    const last = lines.at(-1)!;
    if (last && last.length + word.length >= WIDTH) lines.push(word);
    else lines[lines.length - 1] = last ? `${last} ${word}` : word;
  }
  return lines;
}

function parameters(mark: (name: string) => string, table: Readonly<Record<string, Options>>): string[] {
  const lines = Object.entries(table).map(([id, options]) => {
    const all = Object.entries(options).map(([name, disposition]) => ({name: mark(name), disposition}));
    const plain = all.filter(({disposition}) => !said(disposition)).map(({name}) => name).join(', ');
    return `| ${id} | ${plain} | ${[...grouped(all)].map(([text, names]) => `${names.join(', ')} ${text}`).join('; ').replaceAll('|', '\\|')} |`;
  });
  return ['| operation | honoured | others |', '|---|---|---|', ...lines, ''];
}

function optionsTable(): string {
  const bodies = Object.entries(BODIES).flatMap(([kind, struct]) => {
    const operation = OPERATION[kind as keyof typeof BODIES];
    const all = rows(struct);
    if (kind !== 'containerCreate') return section(`The body of ${operation}`, all);
    const host = all.filter(({name}) => name.startsWith('HostConfig.'));
    return [...section(`The body of ${operation}`, all.filter((row) => !host.includes(row))), ...section(`Its HostConfig`, host.map((row) => ({...row, name: row.name.slice('HostConfig.'.length)})))];
  });
  return [BEGIN, '', ...bodies, '**Query parameters**', '', ...parameters((name) => `\`${name}\``, QUERIES), '**Headers**', '', ...parameters((name) => `\`${name}\``, HEADERS), END].join('\n');
}

/** The document with the table between the two marks brought up to date. */
export function withTable(document: string): string {
  const [from, to] = [document.indexOf(BEGIN), document.indexOf(END)];
  if (from < 0 || to < from) throw new Error(`the document has no "${BEGIN}" ... "${END}"`);
  return `${document.slice(0, from)}${optionsTable()}${document.slice(to + END.length)}`;
}
