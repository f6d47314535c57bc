/**
 * Files with holes, in the four ways in which GNU tar writes them: the archive holds the parts that are not zero, and a map says where each belongs.
 * The holes stay holes: what is claimed is not written. Pure over blocks.
 */
import {invalidHeader, number, whole} from './tar-fields';

export interface Sparse {
  /** Of the whole file. */
  size: number;
  parts: {offset: number; length: number}[];
}

const MAX_PARTS = 100_000;

/** Type 'S': the map is in the header and in the blocks behind it. */
export function oldSparse(header: Buffer, more: () => Buffer): Sparse {
  const numbers: number[] = [];
  const take = (block: Buffer, at: number, count: number): void => {
    for (let i = 0; i < count && block[at + i * 24] !== 0; i += 1) numbers.push(number(block, at + i * 24, 12), number(block, at + i * 24 + 12, 12));
  };
  take(header, 386, 4);
  let extended = header[482] !== 0;
  while (extended) {
    const block = more();
    take(block, 0, 21);
    extended = block[504] !== 0;
    if (numbers.length > 2 * MAX_PARTS) throw invalidHeader();
  }
  return checked(numbers, number(header, 483, 12));
}

/** pax 0.0 (`numbers`), 0.1 (a record) and 1.0 (at the head of the content). Corrects the name, which these formats disguise. */
export function paxSparse(records: Map<string, Buffer>, numbers: string[], header: {name: string; size: number}, block: () => Buffer): Sparse | undefined {
  const text = (key: string): string | undefined => records.get(`GNU.sparse.${key}`)?.toString('latin1');
  const version = text('major') === undefined ? undefined : `${text('major')}.${text('minor')}`;
  if (version !== '1.0' && version !== undefined && version !== '0.1' && version !== '0.0') return undefined;
  const map = text('map')?.split(',') ?? numbers;
  if (version === undefined && map.length === 0) return undefined;
  header.name = text('name') ?? header.name;
  const size = whole(text('realsize') ?? text('size') ?? String(header.size));
  return checked(version === '1.0' ? mapInContent(block) : map.map(whole), size);
}

/** A number a line: how many parts, then their offsets and lengths; filled up to a block. */
function mapInContent(block: () => Buffer): number[] {
  let text = '';
  const lines: string[] = [];
  let wanted = 1;
  while (lines.length < wanted) {
    text += block().toString('latin1');
    const parts = text.split('\n');
    text = parts.pop()!;
    lines.push(...parts);
    if (lines.length) wanted = 1 + 2 * whole(lines[0]!);
    if (wanted > 2 * MAX_PARTS || text.length > 1024) throw invalidHeader();
  }
  return lines.slice(1, wanted).map(whole);
}

/** Parts in order, without overlap, within the file. */
function checked(numbers: number[], size: number): Sparse {
  const parts = Array.from({length: Math.floor(numbers.length / 2)}, (_, i) => ({offset: numbers[2 * i]!, length: numbers[2 * i + 1]!}));
  let end = 0;
  for (const {offset, length} of parts) {
    if (offset < end || length < 0 || offset + length > size) throw invalidHeader();
    end = offset + length;
  }
  if (size < 0 || numbers.length % 2) throw invalidHeader();
  return {size, parts};
}
