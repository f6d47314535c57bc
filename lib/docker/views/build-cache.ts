/** The records of the build cache, which the engine tells in the words of its own API (1.41 or later), in those of the client's. Pure. */
interface Speaks { speaks(minor: number): boolean }
interface CacheRecord { ID: string; Parent?: string; Parents?: string[] | null; Type: string; Description: string; InUse: boolean; Shared: boolean; Size: number; CreatedAt: string; LastUsedAt: string | null; UsageCount: number }

export function buildCacheView(usage: {BuildCache: unknown[]; BuilderSize: number}, {speaks}: Speaks): {BuildCache: object[]; BuilderSize?: number} {
  return {
    BuildCache: (usage.BuildCache as CacheRecord[]).map((record) => cacheRecord(record, speaks(42))),
    ...(speaks(42) ? {} : {BuilderSize: usage.BuilderSize}),
  };
}

/** Before 1.42 a record had one parent. */
function cacheRecord({ID, Parent, Parents, Type, Description, InUse, Shared, Size, CreatedAt, LastUsedAt, UsageCount}: CacheRecord, newer: boolean): object {
  const parents = Parents ?? (Parent ? [Parent] : []);
  return {ID, ...(newer ? {...(parents.length > 0 ? {Parents: parents} : {})} : {Parent: parents[0] ?? ''}), Type, Description, InUse, Shared, Size, CreatedAt, LastUsedAt: LastUsedAt ?? null, UsageCount};
}
