/**
 * Clients that never stop: each makes containers of several kinds through one endpoint or the other, starts them, execs in them, stops, starts and removes them, and writes down what was acknowledged. What was
 * not answered, or refused by a part that was struck, leaves its container doubtful: it may be in either state, and is asked for nothing more but its removal.
 */
import type {TestFleet} from '../fleet';
import {send, type Received} from '../requests';

/** `steady` may go elsewhere; `plain` and `pinned` (by a volume) stay with their node. */
export type Kind = 'steady' | 'plain' | 'pinned';
export interface Entry {
  name: string;
  kind: Kind;
  id: string;
  /** As it was acknowledged. */
  state: 'created' | 'running' | 'exited' | 'absent';
  /** An order to it was not answered as it should have been. */
  doubtful: boolean;
}

export interface Tally { acked: number; refused: number; unanswered: number; execs: number }

const KINDS: readonly Kind[] = ['steady', 'plain', 'steady', 'pinned'];
/** As many stand at most: then each new one has to wait for a removal. */
const MOST = 32;
const PATIENCE_MS = 60_000;

export class Load {
  readonly entries = new Map<string, Entry>();
  readonly tally: Tally = {acked: 0, refused: 0, unanswered: 0, execs: 0};
  /** Answers that are wrong whatever was struck. */
  readonly wrong: string[] = [];
  private working = false;
  private lanes: Promise<void>[] = [];
  private serial = 0;

  constructor(private readonly fleet: TestFleet, private readonly random: () => number, private readonly parallel = 4) {}

  start(): void {
    this.working = true;
    this.lanes = Array.from({length: this.parallel}, (_, lane) => this.lane(lane));
  }

  /** Resolves when no order is on its way. */
  async pause(): Promise<void> {
    this.working = false;
    await Promise.all(this.lanes);
  }

  call(endpoint: number, method: string, at: string, body?: object): Promise<Received> {
    const {hostname, port} = new URL(this.fleet.at(endpoint).host);
    return send({host: hostname, port: Number(port)}, {method, path: `/v1.45${at}`, timeoutMs: PATIENCE_MS, ...(body ? {body: JSON.stringify(body), headers: {'content-type': 'application/json'}} : {})});
  }

  /** Standing ones that can still be told what to do. */
  sure(kind?: Kind): Entry[] {
    return [...this.entries.values()].filter((entry) => !entry.doubtful && entry.state !== 'absent' && (kind === undefined || entry.kind === kind));
  }

  /** `undefined`: nobody can say what came of it. */
  async order(entry: Entry, endpoint: number, method: string, at: string, expected: number[], body?: object): Promise<Received | undefined> {
    const answer = await this.call(endpoint, method, at, body).catch(() => undefined);
    if (answer && expected.includes(answer.status)) {
      this.tally.acked += 1;
      return answer;
    }
    if (!answer || answer.status === 0 || answer.cut) this.tally.unanswered += 1;
    else this.tally.refused += 1;
    entry.doubtful = true;
    return undefined;
  }

  private async lane(lane: number): Promise<void> {
    while (this.working) {
      const standing = this.sure();
      const dice = this.random();
      // Each lane has containers of its own: no two orders to one are on their way at once.
      const own = standing.filter(({name}) => name.startsWith(`c${lane}-`));
      const entry = own[Math.floor(this.random() * own.length)];
      if (entry && (standing.length >= MOST || dice < 0.6)) await this.change(entry, 1 + Math.floor(this.random() * 2));
      else if (standing.length < MOST) await this.make(lane, 1 + Math.floor(this.random() * 2));
      // An endpoint that is away refuses at once.
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  private async make(lane: number, endpoint: number): Promise<void> {
    const serial = this.serial++;
    const kind = KINDS[serial % KINDS.length]!;
    const entry: Entry = {name: `c${lane}-${serial}`, kind, id: '', state: 'absent', doubtful: false};
    this.entries.set(entry.name, entry);
    const host = {Init: false, ...(kind === 'steady' ? {RestartPolicy: {Name: 'unless-stopped'}} : {}), ...(kind === 'pinned' ? {Binds: [`v-${entry.name}:/v`]} : {})};
    const made = await this.order(entry, endpoint, 'POST', `/containers/create?name=${entry.name}`, [201], {Image: 'busybox', Cmd: ['sleep', '100000'], StopSignal: 'SIGKILL', HostConfig: host});
    if (!made) return;
    entry.id = (JSON.parse(made.body.toString()) as {Id: string}).Id;
    entry.state = 'created';
    await this.begin(entry, 3 - endpoint);
  }

  private async begin(entry: Entry, endpoint: number): Promise<void> {
    if (await this.order(entry, endpoint, 'POST', `/containers/${entry.id}/start`, [204, 304])) entry.state = 'running';
  }

  private async change(entry: Entry, endpoint: number): Promise<void> {
    const dice = this.random();
    if (dice < 0.35) return await this.exec(entry, endpoint);
    if (dice < 0.5) return await this.look(entry, endpoint);
    if (dice < 0.7) {
      if (entry.state !== 'running') return await this.begin(entry, endpoint);
      if (await this.order(entry, endpoint, 'POST', `/containers/${entry.id}/stop?t=1`, [204, 304])) entry.state = 'exited';
      return;
    }
    if (await this.order(entry, endpoint, 'DELETE', `/containers/${entry.id}?force=1&v=1`, [204])) entry.state = 'absent';
  }

  /** Changes nothing: whatever comes of it, the container is what it was. A command that ran must have its output. */
  private async exec(entry: Entry, endpoint: number): Promise<void> {
    if (entry.state !== 'running') return;
    const made = await this.call(endpoint, 'POST', `/containers/${entry.id}/exec`, {Cmd: ['echo', entry.name], AttachStdout: true}).catch(() => undefined);
    if (made?.status !== 201) return;
    const {Id} = JSON.parse(made.body.toString()) as {Id: string};
    const {hostname, port} = new URL(this.fleet.at(3 - endpoint).host);
    const said = await send({host: hostname, port: Number(port)}, {method: 'POST', path: `/v1.45/exec/${Id}/start`, headers: {'content-type': 'application/json'}, body: '{"Detach":false,"Tty":false}', stdin: '', timeoutMs: PATIENCE_MS}).catch(() => undefined);
    this.tally.execs += 1;
    const text = said?.status === 101 || said?.status === 200 ? said.body.subarray(8).toString().trim() : '';
    // Cut off by a fault it may be short, never another's.
    if (text !== '' && !entry.name.startsWith(text) && !/OCI|exec|node|container/.test(text)) this.wrong.push(`exec in ${entry.name} said ${JSON.stringify(text)}`);
  }

  private async look(entry: Entry, endpoint: number): Promise<void> {
    const answer = await this.call(endpoint, 'GET', `/containers/${entry.id}/json`).catch(() => undefined);
    if (answer?.status === 404) this.wrong.push(`${entry.name} is acknowledged as ${entry.state}, and endpoint ${endpoint} does not know it`);
  }
}
