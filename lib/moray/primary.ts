/**
 * Where the primary is, by what somebody else decides: a fixed URL, a function, or manatee's discovery, which also tells of changes and
 * numbers them (generations). Guarantees: never goes back to an older generation; whoever connects is told of the newest known; a primary that
 * was replaced is told of at once (`onMoved`), so that nothing is left at the old one. The same primary in a newer generation has not moved.
 */
import {CetusError} from '../base/errors';
import type {Log} from '../base/log';

export interface Primary {
  url: string;
  /** Rises whenever somebody else may have become primary; the server has to know it too (setting cetus.generation). 0: there are none, as with a fixed URL. */
  generation: number;
}

export interface Discovery {
  /** Asked for each new connection, and after each change. */
  primary(): Primary | Promise<Primary>;
  /** Something may have changed; may come too often. Answers how to stop listening. */
  onChange?(listener: () => void): () => void;
}

export type Discover = () => string | Promise<string>;

const ASK_TIMEOUT_MS = 3000;

export function discoveryOf(where: string | Discover | Discovery): Discovery {
  if (typeof where === 'string') return {primary: () => ({url: where, generation: 0})};
  return typeof where === 'function' ? {primary: async () => ({url: await where(), generation: 0})} : where;
}

export class Whereabouts {
  private known: Primary | undefined;
  private looking = false;
  private lookAgain = false;
  private readonly stopListening: () => void;

  /** `onChange` comes after every hint, when it has been looked at; `onMoved` with the new primary. */
  constructor(private readonly discovery: Discovery, private readonly onMoved: (primary: Primary) => void, private readonly onChange: () => void, private readonly log: Log) {
    this.stopListening = discovery.onChange?.(() => void this.look()) ?? (() => undefined);
  }

  /** Throws `unavailable` where nobody knows, or what is known has been left behind. */
  async find(): Promise<Primary> {
    const found = await bounded(async () => this.discovery.primary());
    const {known} = this;
    if (known && found.generation < known.generation)
      throw new CetusError('unavailable', `the primary of generation ${found.generation} was found, and there has been generation ${known.generation}`);
    this.known = found;
    if (known && found.generation > known.generation && found.url !== known.url) this.onMoved(found);
    return found;
  }

  /** False: since then a newer generation has another primary. */
  isCurrent(primary: Primary): boolean {
    return this.known === undefined || this.known.generation <= primary.generation || this.known.url === primary.url;
  }

  private async look(): Promise<void> {
    this.lookAgain = true;
    if (this.looking) return;
    this.looking = true;
    try {
      while (this.lookAgain) {
        this.lookAgain = false;
        // Whoever connects next asks again.
        await this.find().catch((err: unknown) => this.log.debug({err}, 'looking for the primary'));
        this.onChange();
      }
    } finally {
      this.looking = false;
    }
  }

  close(): void {
    this.stopListening();
  }
}

async function bounded<T>(ask: () => Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new CetusError('unavailable', `where the primary is was not told within ${ASK_TIMEOUT_MS} ms`)), ASK_TIMEOUT_MS);
  });
  try {
    return await Promise.race([ask(), late]);
  } finally {
    clearTimeout(timer);
  }
}
