import {randomBytes, randomUUID} from 'node:crypto';

/** Identifiers, injectable so that a simulator can own them. */
export interface Ids {
  /** 64 hexadecimal digits, as Docker names containers, networks and execs. */
  hex64(): string;
  uuid(): string;
}

export const systemIds: Ids = {
  hex64: () => randomBytes(32).toString('hex'),
  uuid: () => randomUUID(),
};

export const SHORT_ID_LENGTH = 12;

export function shortId(id: string): string {
  return id.replace(/^sha256:/, '').slice(0, SHORT_ID_LENGTH);
}
