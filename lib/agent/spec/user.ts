/** `User` and `GroupAdd` to numbers, by the passwd and group files inside the container, with the Engine's words for what is not found. Pure over a reader. */
import {CetusError} from '../../base/errors';

export interface User { uid: number; gid: number; additionalGids: number[] }
export type ReadFile = (path: string) => string | undefined;

const MAX_ID = 2 ** 31 - 1;

interface Passwd { name: string; uid: number; gid: number }
interface Group { name: string; gid: number; members: string[] }

const rows = (text: string | undefined): string[][] => (text ?? '').split('\n').filter((l) => l && !l.startsWith('#')).map((l) => l.split(':'));
const parsePasswd = (text: string | undefined): Passwd[] => rows(text).map(([name, , uid, gid]) => ({name, uid: Number(uid), gid: Number(gid)}));
const parseGroup = (text: string | undefined): Group[] => rows(text).map(([name, , gid, members]) => ({name, gid: Number(gid), members: (members ?? '').split(',').filter(Boolean)}));

function numeric(text: string): number | undefined {
  if (!/^-?\d+$/.test(text)) return undefined;
  const id = Number(text);
  if (id < 0 || id > MAX_ID) throw new CetusError('invalid', `uids and gids must be in range 0-${MAX_ID}`);
  return id;
}

/** "user", "uid", "user:group", "uid:gid", ... as in Config.User; '' is root. */
export function resolveUser(text: string, groupAdd: readonly string[], read: ReadFile): User {
  const [userPart, groupPart = ''] = splitOnce(text);
  const passwd = parsePasswd(read('/etc/passwd'));
  const needGroups = groupPart !== '' || groupAdd.length > 0;
  const groups = parseGroup(read('/etc/group'));

  const asNumber = userPart === '' ? 0 : numeric(userPart);
  // A name wins over the number that it may look like, as in the Engine's look-up.
  const entry = passwd.find((p) => p.name === userPart) ?? (asNumber === undefined ? undefined : passwd.find((p) => p.uid === asNumber));
  if (!entry && asNumber === undefined) throw new CetusError('invalid', `unable to find user ${userPart}: no matching entries in passwd file`);
  const uid = entry?.uid ?? asNumber!;
  let gid = entry?.gid ?? 0;
  let additionalGids: number[] = [];
  if (groupPart !== '') gid = groupId(groupPart, groups);
  // Whoever names a group gets that one alone; else all those that list the user.
  else if (entry) additionalGids = groups.filter((g) => g.members.includes(entry.name)).map((g) => g.gid).filter((g) => g !== gid);
  if (needGroups) additionalGids.push(...groupAdd.map((name) => groupId(name, groups)));
  return {uid, gid, additionalGids: [...new Set([gid, ...additionalGids])].filter(Number.isInteger)};
}

function groupId(text: string, groups: Group[]): number {
  const named = groups.find((g) => g.name === text)?.gid;
  const id = named ?? numeric(text);
  if (id === undefined) throw new CetusError('invalid', `unable to find group ${text}: no matching entries in group file`);
  return id;
}

function splitOnce(text: string): [string, string?] {
  const at = text.indexOf(':');
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + 1)];
}
