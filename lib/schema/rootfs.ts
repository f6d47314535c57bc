/** Files of a container: what `docker cp` and `docker diff` ask for. */

/** One entry, as X-Docker-Container-Path-Stat carries it (base64 of its JSON). */
export interface PathStat {
  /** The last part of the path as the caller wrote it. */
  name: string;
  /** Bytes. */
  size: number;
  /** Go's os.FileMode: permission bits as everywhere, type and setuid bits its own. */
  mode: number;
  /** RFC 3339, nanoseconds. */
  mtime: string;
  /** Of a link: where it leads in the container, all links resolved. Else ''. */
  linkTarget: string;
}

/** Docker's: 0 modified, 1 added, 2 deleted. */
export type ChangeKind = 0 | 1 | 2;

export interface FilesystemChange {
  /** Absolute, in the container. */
  Path: string;
  Kind: ChangeKind;
}
