/** How the operator's verbs look on a screen: columns, ages, durations. Pure. */
import {formatMemory} from '../../base/units';
import type {StepRecord} from '../../schema/job';

/** Left-aligned columns, two spaces apart; an empty table still shows its head. */
export function table(head: string[], rows: string[][]): string {
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column].length)));
  return [head, ...rows].map((row) => row.map((cell, column) => (column === row.length - 1 ? cell : cell.padEnd(widths[column] + 2))).join('')).join('\n');
}

/** RFC 3339 with nanoseconds to milliseconds, keeping the fraction: jobs' steps are shorter than one. */
export function toMs(time: string): number {
  const fraction = /\.(\d+)/.exec(time)?.[1] ?? '';
  return Date.parse(`${time.slice(0, 19)}Z`) + Number(`0.${fraction || '0'}`) * 1000;
}

export function duration(ms: number): string {
  if (ms < 1000) return `${ms.toFixed(1)} ms`;
  const seconds = ms / 1000;
  if (seconds < 120) return `${seconds.toFixed(1)} s`;
  const minutes = seconds / 60;
  if (minutes < 120) return `${Math.round(minutes)} min`;
  const hours = minutes / 60;
  return hours < 48 ? `${Math.round(hours)} h` : `${Math.round(hours / 24)} d`;
}

export function age(time: string, nowMs: number): string {
  return duration(Math.max(0, nowMs - toMs(time)));
}

export const between = (from: string | undefined, to: string | undefined): string => (from && to ? duration(toMs(to) - toMs(from)) : '');

export function bytes(n: number): string {
  return n === 0 ? '-' : formatMemory(n);
}

export const cpus = (nano: number): string => (nano === 0 ? '-' : String(nano / 1e9));

export function steps(records: StepRecord[]): string {
  return table(['STEP', 'STATE', 'TOOK', 'TRIES', 'EPOCH', 'ERROR'],
    records.map((s) => [s.step, s.state, between(s.startedAt, s.endedAt), String(s.tries), String(s.epoch), s.error ? `${s.error.kind}: ${s.error.message}` : '']));
}
