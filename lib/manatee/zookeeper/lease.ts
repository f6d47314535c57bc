/**
 * Until when nobody can have seen a session expire, from what its own client can know. Pure; one per session.
 *
 * Only the leader expires a session, T after it last heard of it (rounded up to its next tick). It hears of it in two ways, and **an answered write is
 * neither**: the leader checks that the session lives when a follower hands it a write, and moves nothing. What it moves by:
 *
 *   - the session's beginning, a write, and its move to another server, which the server asks the leader about before it answers: at or after the
 *     moment when the connection was asked for;
 *   - the followers' answers to its pings, one every half tick: each carries the sessions that spoke since the one before. Pings, their answers,
 *     writes and commits share one ordered stream per direction.
 *
 * (ZooKeeper 3.8: LearnerHandler.run touches sessions for a ping's answer and for a move; submitLearnerRequest goes to PrepRequestProcessor, which checks.)
 *
 * So of a write that was answered before a later one was sent, at least half a tick apart, the leader knew when it took the later one. T is two ticks or
 * more, half a tick therefore T/4 or less. Hence, of a question sent at s and answered by a quorum:
 *
 *   until = min(s + 2T/3, base + T)     base: when the newest write was sent that was answered on this connection T/4 before s; else the connection
 *
 * The first term alone (what one would take for the rule) is wrong by up to half a tick after a gap: a client that was stopped for 0.9 T, and whose first
 * write after that is answered, may expire at T. With beats every T/6 base is s - T/3, and both terms say the same.
 *
 * Only answers of a quorum count. A leader that has been deposed and does not know it answers reads, `sync` and moves of sessions, and no write. A new
 * leader counts every session's T afresh from its own beginning, which lies after every write that it has; a server that leaves its leader drops its
 * clients, so one connection means one leader.
 *
 * What is left to trust: a third of T covers the pings' lateness, and the clocks' difference in speed.
 */
export class Lease {
  private readonly answers: {sentMs: number; answeredMs: number}[] = [];
  private connectedMs = -Infinity;
  private untilMs = -Infinity;
  private timeoutMs = 0;

  /** A connection of the session that was asked for at `sentMs` stands. `begun`: with it the session itself began. */
  connected(sentMs: number, timeoutMs: number, begun: boolean): void {
    this.connectedMs = sentMs;
    this.timeoutMs = timeoutMs;
    this.answers.length = 0;
    if (begun) this.untilMs = sentMs + timeoutMs * 2 / 3;
  }

  /** A write that was sent on the present connection has been answered. */
  answered(sentMs: number, answeredMs: number): void {
    // The newest that is old enough for the leader to have heard of it; those before it say less.
    let known = -1;
    while (known + 1 < this.answers.length && this.answers[known + 1]!.answeredMs <= sentMs - this.timeoutMs / 4) known += 1;
    const base = known < 0 ? this.connectedMs : this.answers[known]!.sentMs;
    if (known > 0) this.answers.splice(0, known);
    this.answers.push({sentMs, answeredMs});
    this.untilMs = Math.max(this.untilMs, Math.min(sentMs + this.timeoutMs * 2 / 3, base + this.timeoutMs));
  }

  ended(): void {
    this.untilMs = -Infinity;
    this.timeoutMs = 0;
    this.answers.length = 0;
  }

  until(): number {
    return this.untilMs;
  }
}
