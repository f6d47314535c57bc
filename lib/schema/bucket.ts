/** The shape of a bucket: definitions are data, versioned in code (lib/schema/buckets.ts), and opened by lib/moray. */
export type IndexType = 'string' | 'number' | 'boolean' | 'uuid' | 'date' | 'ip' | 'subnet'
  | 'string[]' | 'number[]' | 'boolean[]' | 'uuid[]' | 'date[]' | 'ip[]' | 'subnet[]';

export interface IndexedField {
  type: IndexType;
  unique?: boolean;
  /** Where in the object the value is, dotted; default: the field's own name. */
  path?: string;
}

export interface BucketDefinition {
  /** Lower case, digits and underscores. */
  name: string;
  /** Rises with every change of `fields`. A process that knows a lower version than the stored one leaves the table alone. */
  version: number;
  fields: Record<string, IndexedField>;
  /** How long deletions stay visible to the change feed. Default one hour. */
  tombstoneRetentionMs?: number;
}
