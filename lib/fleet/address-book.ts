/**
 * Who has which address, as this process knows it from the leases in the store: fed by the change feed and by whoever has just read them, in any
 * order. Of an address the higher etag is true. Pure; table-keeper.ts tells nodes.
 */
import type {NetworkTable, TableNode, TableRow} from '../schema/agent';
import type {AddressLease} from '../schema/objects';

interface Page { rows: Map<string, TableRow>; /** By address, since when nobody has it. */ gone: Map<string, string>; /** Rows by node. */ nodes: Map<string, number> }

/** An end is told within seconds, or with the whole table; what is kept longer only guards against a late row. */
const MAX_GONE = 1_000;
const NO_ROWS: ReadonlyMap<string, TableRow> = new Map();

export class AddressBook {
  private readonly pages = new Map<string, Page>();
  private readonly networksByNode = new Map<string, Set<string>>();
  private newest = 0n;

  /** Whether it is news. A lease of an earlier version, which does not say where its container is, is none: nobody can be led there. */
  put(lease: AddressLease, etag: string): boolean {
    if (lease.nodeId === undefined) return false;
    const {networkId, address, mac, containerId, nodeId, aliases = []} = lease;
    if (!this.isNewer(networkId, address, etag)) return false;
    const page = this.page(networkId);
    this.drop(networkId, page, address);
    page.gone.delete(address);
    page.rows.set(address, {address, mac, containerId, nodeId, aliases, version: etag});
    page.nodes.set(nodeId, (page.nodes.get(nodeId) ?? 0) + 1);
    const networks = this.networksByNode.get(nodeId) ?? new Set<string>();
    this.networksByNode.set(nodeId, networks.add(networkId));
    return true;
  }

  /** Nobody has had it since. */
  end(networkId: string, address: string, etag: string): boolean {
    if (!this.isNewer(networkId, address, etag)) return false;
    const page = this.page(networkId);
    const had = page.rows.has(address);
    this.drop(networkId, page, address);
    page.gone.set(address, etag);
    if (page.gone.size > MAX_GONE) page.gone.delete(page.gone.keys().next().value!);
    return had;
  }

  /** After a listing: what was known before and is not in it has gone meanwhile. The feed that tells of later ends has begun before. */
  endUnlisted(listed: ReadonlySet<string>, upTo: bigint): {networkId: string; address: string}[] {
    const ended: {networkId: string; address: string}[] = [];
    for (const [networkId, page] of this.pages) {
      for (const {address, version} of [...page.rows.values()]) {
        if (listed.has(`${networkId}/${address}`) || BigInt(version) > upTo) continue;
        this.drop(networkId, page, address);
        page.gone.set(address, version);
        ended.push({networkId, address});
      }
    }
    return ended;
  }

  get seenUpTo(): bigint { return this.newest; }
  networks(): IterableIterator<string> { return this.pages.keys(); }
  /** By address; not to be kept, for it changes. */
  rowsOf(networkId: string): ReadonlyMap<string, TableRow> { return this.pages.get(networkId)?.rows ?? NO_ROWS; }
  nodesOf(networkId: string): string[] { return [...this.pages.get(networkId)?.nodes.keys() ?? []]; }
  networksOf(nodeId: string): string[] { return [...this.networksByNode.get(nodeId) ?? []]; }
  isOn(networkId: string, nodeId: string): boolean { return this.pages.get(networkId)?.nodes.has(nodeId) ?? false; }

  /** Everything there is; ends that were seen are among what is not. */
  whole(networkId: string, nodeOf: (nodeId: string) => TableNode | undefined): NetworkTable {
    const page = this.page(networkId);
    return {
      rows: [...page.rows.values()], gone: [...page.gone].map(([address, version]) => ({address, version})),
      nodes: [...page.nodes.keys()].flatMap((id) => nodeOf(id) ?? []), asOf: String(this.newest),
    };
  }

  /** What these addresses are now. */
  changes(networkId: string, addresses: readonly string[], nodeOf: (nodeId: string) => TableNode | undefined): NetworkTable {
    const page = this.page(networkId);
    const rows = addresses.flatMap((address) => page.rows.get(address) ?? []);
    return {
      rows, gone: addresses.flatMap((address) => (page.gone.has(address) ? [{address, version: page.gone.get(address)!}] : [])),
      nodes: [...new Set(rows.map(({nodeId}) => nodeId))].flatMap((id) => nodeOf(id) ?? []),
    };
  }

  private isNewer(networkId: string, address: string, etag: string): boolean {
    const version = BigInt(etag);
    if (version > this.newest) this.newest = version;
    const page = this.pages.get(networkId);
    return version > BigInt(page?.rows.get(address)?.version ?? page?.gone.get(address) ?? '0');
  }

  private page(networkId: string): Page {
    let page = this.pages.get(networkId);
    if (!page) this.pages.set(networkId, page = {rows: new Map(), gone: new Map(), nodes: new Map()});
    return page;
  }

  private drop(networkId: string, page: Page, address: string): void {
    const row = page.rows.get(address);
    if (!row) return;
    page.rows.delete(address);
    const left = page.nodes.get(row.nodeId)! - 1;
    if (left > 0) return void page.nodes.set(row.nodeId, left);
    page.nodes.delete(row.nodeId);
    const networks = this.networksByNode.get(row.nodeId)!;
    networks.delete(networkId);
    if (networks.size === 0) this.networksByNode.delete(row.nodeId);
  }
}
