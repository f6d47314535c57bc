/**
 * API versions: which are spoken, how a path's prefix is read, and the Engine's own words for one out of range.
 * Also what Cetus says of itself, in the shapes that clients parse.
 */
import {CetusError} from '../base/errors';

export interface ApiVersion { major: number; minor: number }

const MIN_API: ApiVersion = {major: 1, minor: 24};
export const MAX_API: ApiVersion = {major: 1, minor: 51};

const versionText = (v: ApiVersion): string => `${v.major}.${v.minor}`;
export const MAX_API_TEXT = versionText(MAX_API);
export const MIN_API_TEXT = versionText(MIN_API);

const PREFIX = /^\/v([0-9.]+)(\/.*)$/;

/** `atLeast(x, 42)`: does the client speak 1.42 or newer? */
export function atLeast(v: ApiVersion, minor: number): boolean {
  return v.major > 1 || (v.major === 1 && v.minor >= minor);
}

/** Splits "/v1.41/containers/json" into version text and path; without a prefix the newest version is meant. */
export function splitVersion(path: string): {version: string; path: string} {
  const found = PREFIX.exec(path);
  return found ? {version: found[1]!, path: found[2]!} : {version: MAX_API_TEXT, path};
}

/** Part by part as numbers, as the Engine compares: "1.041" is 1.41, "1.24.1" is more than 1.24, and what is no number is 0. */
function compareTexts(a: string, b: string): number {
  const [left, right] = [a.split('.').map(Number), b.split('.').map(Number)];
  for (let n = 0; n < Math.max(left.length, right.length); n += 1) {
    const difference = (left[n] ?? 0) - (right[n] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

export function parseVersion(text: string): ApiVersion {
  if (compareTexts(text, MIN_API_TEXT) < 0)
    throw new CetusError('invalid', `client version ${text} is too old. Minimum supported API version is ${MIN_API_TEXT}, please upgrade your client to a newer version`);
  if (compareTexts(text, MAX_API_TEXT) > 0) throw new CetusError('invalid', `client version ${text} is too new. Maximum supported API version is ${MAX_API_TEXT}`);
  const [major, minor] = text.split('.');
  return {major: Number(major), minor: Number(minor)};
}

/**
 * What /version says: a Docker version first, because clients compare it as semver; Cetus's own follows as build metadata,
 * which semver ignores.
 */
export const engineVersion = (cetusVersion: string): string => `28.3.0+cetus.${cetusVersion}`;
