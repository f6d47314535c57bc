/**
 * One standby's stream: the walsender at the upstream's end, the walreceiver at the standby's. Each end learns of the other's going by a message
 * or, behind a cut and after a power failure, by a timeout. An answer that was sent before the standby hung up still counts.
 */
import {formatLsn, NO_WAL, type Lsn} from '../../../lib/manatee/lsn';
import type {Acknowledger} from '../../../lib/manatee/server';
import type {Run} from './run';
import type {Rec} from './wal';

const TIMEOUT_MS = 5_000;
const LOOK_MS = 1_900;

export class Stream {
  state: 'catchup' | 'streaming' = 'catchup';
  /** As the walsender heard. */
  flushedLsn = 0;
  /** The rule that this walsender goes by: it reads the configuration anew when it sees the reload. */
  sees: Acknowledger;
  goneAtUpstream = false;
  goneAtStandby = false;
  private onWay = false;
  private text: {of: number; is: Lsn} = {of: 0, is: NO_WAL};

  constructor(readonly upstream: Run, readonly standby: Run, private next: number) {
    this.sees = upstream.configured;
  }

  flushedText(): Lsn {
    if (this.text.of !== this.flushedLsn) this.text = {of: this.flushedLsn, is: formatLsn(BigInt(this.flushedLsn))};
    return this.text.is;
  }

  begin(): void {
    this.look();
    this.pump();
  }

  /** Sends what is flushed here and not yet there; one message at a time. */
  pump(): void {
    if (this.onWay || this.goneAtUpstream) return;
    const {disk, server} = this.upstream;
    const until = disk.flushed;
    if (this.next >= until) {
      if (this.state === 'catchup') {
        this.state = 'streaming';
        this.reply();
      }
      return;
    }
    const from = this.next;
    const records = disk.log.slice(from, until);
    this.onWay = true;
    this.next = until;
    server.world.network.send(server.id, this.standby.server.id, () => {
      this.standby.life.deliver(() => this.arrive(records));
      this.upstream.life.deliver(() => {
        this.onWay = false;
        this.pump();
      });
    });
  }

  /** The standby tells what it has flushed. */
  reply(): void {
    if (this.goneAtStandby) return;
    const {server, disk} = this.standby;
    const flushedLsn = disk.log[disk.flushed - 1]?.lsn ?? 0;
    server.world.network.send(server.id, this.upstream.server.id, () => this.upstream.life.deliver(() => {
      if (this.goneAtUpstream) return;
      this.flushedLsn = Math.max(this.flushedLsn, flushedLsn);
      this.upstream.heardFrom(this);
    }));
  }

  /** The standby stops receiving; the upstream hears of it after all that was said before. */
  leave(): void {
    if (this.goneAtStandby) return;
    this.goneAtStandby = true;
    this.standby.receiverGone(this);
    const {server} = this.standby;
    server.world.network.send(server.id, this.upstream.server.id, () => this.upstream.life.deliver(() => this.dropAtUpstream()));
  }

  dropAtUpstream(): void {
    if (this.goneAtUpstream) return;
    this.goneAtUpstream = true;
    this.upstream.senderGone(this);
    const {server} = this.upstream;
    server.world.network.send(server.id, this.standby.server.id, () => this.standby.life.deliver(() => this.leave()));
  }

  private arrive(records: Rec[]): void {
    if (this.goneAtStandby) return;
    this.standby.receive(this, records);
  }

  private look(): void {
    const {timeline, network} = this.upstream.server.world;
    timeline.after(LOOK_MS, () => {
      if (this.goneAtStandby && this.goneAtUpstream) return;
      const silent = this.upstream.life.dead || this.standby.life.dead || network.cutForMs(this.upstream.server.id, this.standby.server.id) > TIMEOUT_MS;
      if (silent) {
        this.standby.life.deliver(() => this.leave());
        this.upstream.life.deliver(() => this.dropAtUpstream());
        if (this.upstream.life.dead) this.goneAtUpstream = true;
        if (this.standby.life.dead) this.goneAtStandby = true;
      }
      this.look();
    });
  }
}
