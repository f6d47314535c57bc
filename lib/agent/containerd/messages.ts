/**
 * containerd's messages as TypeScript, in the shape in which proto-loader takes and gives them: camelCase, 64-bit integers as numbers
 * (every size here is far below 2^53), enums by name, absent messages as null. In a request every field may be left out.
 */

/** google.protobuf.Any. proto-loader keeps this one name in snake case. */
export interface Any { type_url: string; value: Buffer }
export interface Timestamp { seconds: number; nanos: number }
export interface FieldMask { paths: string[] }
export type Labels = Record<string, string>;

export interface Mount { type: string; source: string; target?: string; options: string[] }
export interface Descriptor { mediaType: string; digest: string; size: number; annotations?: Labels }

export interface Container {
  id: string;
  labels?: Labels;
  image?: string;
  runtime?: {name: string; options?: Any | null} | null;
  spec?: Any | null;
  snapshotter?: string;
  snapshotKey?: string;
  createdAt?: Timestamp | null;
  updatedAt?: Timestamp | null;
}

export type ProcessStatus = 'UNKNOWN' | 'CREATED' | 'RUNNING' | 'STOPPED' | 'PAUSED' | 'PAUSING';
export interface Process {
  containerId: string;
  id: string;
  pid: number;
  status: ProcessStatus;
  stdin: string;
  stdout: string;
  stderr: string;
  terminal: boolean;
  exitStatus: number;
  exitedAt: Timestamp | null;
}
export interface Exit { exitStatus: number; exitedAt: Timestamp | null }

export type SnapshotKind = 'UNKNOWN' | 'VIEW' | 'ACTIVE' | 'COMMITTED';
export interface SnapshotInfo { name: string; parent: string; kind: SnapshotKind; createdAt: Timestamp | null; updatedAt: Timestamp | null; labels: Labels }
export interface SnapshotKey { snapshotter: string; key: string }

export interface ContentInfo { digest: string; size: number; createdAt: Timestamp | null; updatedAt: Timestamp | null; labels: Labels }
export interface IngestStatus { startedAt: Timestamp | null; updatedAt: Timestamp | null; ref: string; offset: number; total: number; expected: string }
export interface WriteContentRequest {
  action: 'STAT' | 'WRITE' | 'COMMIT';
  ref?: string;
  total?: number;
  expected?: string;
  offset?: number;
  data?: Buffer;
  labels?: Labels;
}
export interface WriteContentResponse { action: 'STAT' | 'WRITE' | 'COMMIT'; offset: number; total: number; digest: string }

export interface Image { name: string; labels?: Labels; target: Descriptor; createdAt?: Timestamp | null; updatedAt?: Timestamp | null }
export interface Lease { id: string; createdAt: Timestamp | null; labels: Labels }
export interface Resource { id: string; type: string }
export interface Namespace { name: string; labels?: Labels }
export interface Envelope { timestamp: Timestamp | null; namespace: string; topic: string; event: Any | null }
export interface Plugin { type: string; id: string; requires: string[]; exports: Labels; capabilities: string[]; initErr: {code: number; message: string} | null }

/** RFC 3339 with nanoseconds; a missing timestamp and Go's zero time are both "never". */
export function formatTimestamp(at: Timestamp | null | undefined): string {
  if (!at || at.seconds <= 0) return '0001-01-01T00:00:00Z';
  return `${new Date(at.seconds * 1000).toISOString().slice(0, 19)}.${String(at.nanos).padStart(9, '0')}Z`;
}
