/** The rows as they come, and at the end the table: a column for each fleet, how the last compares with the first, and which targets are missed. */

interface Target { least?: number; most?: number }
interface Row { title: string; unit: string; target: Target | undefined; values: Map<number, number> }

export class Report {
  private readonly rows = new Map<string, Row>();

  constructor(private readonly sizes: readonly number[]) {}

  put(size: number, title: string, value: number, unit: string, target?: Target): void {
    const row = this.rows.get(title) ?? {title, unit, target, values: new Map<number, number>()};
    this.rows.set(title, row);
    row.values.set(size, value);
    console.log(`  ${title.padEnd(42)} ${shown(value).padStart(9)} ${unit.padEnd(12)} ${target ? `${met(value, target) ? 'ok' : 'MISSED'} (${wanted(target)})` : ''}`);
  }

  print(): void {
    console.log(`\n${'nodes'.padEnd(58)}${this.sizes.map((size) => String(size).padStart(10)).join('')}${this.sizes.length > 1 ? '    growth' : ''}`);
    const missed: string[] = [];
    for (const {title, unit, target, values} of this.rows.values()) {
      const cells = this.sizes.map((size) => values.get(size));
      const [first, last] = [cells[0], cells.at(-1)];
      const growth = this.sizes.length > 1 && first && last !== undefined ? `${(last / first).toFixed(2)}`.padStart(10) : '';
      console.log(`${`${title}${unit ? `, ${unit}` : ''}`.padEnd(58)}${cells.map((value) => (value === undefined ? '-' : shown(value)).padStart(10)).join('')}${growth}${target ? `   ${wanted(target)}` : ''}`);
      for (const [size, value] of values) if (target && !met(value, target)) missed.push(`${title} at ${size} nodes (${shown(value)} ${unit}, ${wanted(target)})`);
    }
    console.log(missed.length ? `\nmissed: ${missed.join('; ')}` : '\nevery target is reached');
  }
}

const met = (value: number, {least = -Infinity, most = Infinity}: Target): boolean => value >= least && value <= most;
const wanted = ({least, most}: Target): string => (least !== undefined ? `>= ${least}` : `<= ${most}`);
const shown = (value: number): string => (value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value >= 1 || value === 0 ? value.toFixed(2) : value.toFixed(3));
