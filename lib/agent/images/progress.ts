/** Progress lines, byte for byte as the Engine writes them (pkg/streamformatter, jsonmessage), and not more of them than a person can see. */
import type {Clock} from '../../base/clock';
import {formatBytes} from '../../base/units';
import type {ProgressMessage} from '../../schema/docker';

const BAR_WIDTH = 50;
/** Lines of one layer follow each other no faster. */
const INTERVAL_MS = 100;

/** A line without numbers: "Pulling fs layer", "Download complete", ... */
export function statusLine(id: string, status: string): ProgressMessage {
  return {status, progressDetail: {}, id};
}

export function progressLine(id: string, status: string, current: number, total: number): ProgressMessage {
  return {status, progressDetail: {current, total}, progress: bar(current, total), id};
}

/** Unpacking happens inside containerd, which tells no bytes; the Engine on containerd counts seconds then, from 1. */
export function secondsLine(id: string, status: string, seconds: number): ProgressMessage {
  return {status, progressDetail: {current: seconds, units: 's'}, progress: `${seconds} s`, id};
}

export function bar(current: number, total: number): string {
  if (current <= 0 && total <= 0) return '';
  if (total <= 0) return formatBytes(current).padStart(8);
  const filled = Math.min(Math.trunc(Math.trunc(current / total * 100) / 2), BAR_WIDTH);
  const numbers = current > total ? formatBytes(current).padStart(8) : `${formatBytes(current).padStart(8)}/${formatBytes(total)}`;
  return `[${'='.repeat(filled)}>${' '.repeat(BAR_WIDTH - filled)}] ${numbers}`;
}

export function layerId(digest: string): string {
  return digest.slice('sha256:'.length, 'sha256:'.length + 12);
}

/** Lets through what is due for a layer: the first, the last, and one per interval in between. */
export class Throttle {
  private readonly last = new Map<string, number>();

  constructor(private readonly clock: Clock) {}

  due(id: string, current: number, total: number): boolean {
    const now = this.clock.now();
    const last = this.last.get(id);
    if (last !== undefined && current < total && now - last < INTERVAL_MS) return false;
    this.last.set(id, now);
    return true;
  }
}
