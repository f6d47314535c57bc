/**
 * containerd's task events as RuntimeEvents, for ever: a broken subscription is made again. containerd replays nothing and does not say
 * when a subscription stands, so each one is proved by an event of our own that must come back; only then `reconnected` tells the
 * listener to look at everything: what happened before is in the state, what happens after is in the stream.
 */
import {systemClock} from '../../base/clock';
import type {Log} from '../../base/log';
import {decodeAny, type ContainerdClient} from '../containerd/connect';
import {type Envelope, type Timestamp, formatTimestamp} from '../containerd/messages';
import type {RuntimeEvent} from './runtime';

const PROOF_TOPIC = '/cetus/subscribed';
const TOPICS = ['/tasks/exit', '/tasks/oom', '/tasks/paused', '/tasks/resumed', PROOF_TOPIC];
const PROOF_INTERVAL_MS = 20;
const AGAIN_MS = 100;

export async function* containerdEvents(client: ContainerdClient, log: Log, signal: AbortSignal): AsyncGenerator<RuntimeEvent> {
  while (!signal.aborted) {
    const attempt = new AbortController();
    const either = AbortSignal.any([signal, attempt.signal]);
    let proved = false;
    const proof = prove(client, either, () => proved);
    try {
      for await (const envelope of client.events.subscribe({filters: TOPICS.map(topic => `namespace==${client.namespace},topic=="${topic}"`)}, {signal: either})) {
        if (envelope.topic === PROOF_TOPIC) {
          if (!proved) yield {kind: 'reconnected'};
          proved = true;
          continue;
        }
        const event = translate(envelope);
        if (event) yield event;
      }
    } catch (err) {
      if (signal.aborted) return;
      log.warn({err}, 'the event stream of containerd broke; subscribing again');
    } finally {
      attempt.abort();
      await proof;
    }
    await systemClock.sleep(AGAIN_MS, signal).catch(() => undefined);
  }
}

async function prove(client: ContainerdClient, signal: AbortSignal, done: () => boolean): Promise<void> {
  while (!signal.aborted && !done()) {
    await client.events.publish({topic: PROOF_TOPIC, event: {type_url: 'cetus.Subscribed', value: Buffer.alloc(0)}}, {signal}).catch(() => undefined);
    await systemClock.sleep(PROOF_INTERVAL_MS, signal).catch(() => undefined);
  }
}

function translate({topic, event}: Envelope): RuntimeEvent | undefined {
  if (!event) return undefined;
  switch (topic) {
    case '/tasks/exit': {
      const exit = decodeAny<{containerId: string; id: string; pid: number; exitStatus: number; exitedAt: Timestamp | null}>(event);
      return {
        kind: 'exit', containerId: exit.containerId, execId: exit.id === exit.containerId ? '' : exit.id,
        pid: exit.pid, exitCode: exit.exitStatus, exitedAt: formatTimestamp(exit.exitedAt),
      };
    }
    case '/tasks/oom': return {kind: 'oom', containerId: decodeAny<{containerId: string}>(event).containerId};
    case '/tasks/paused': return {kind: 'paused', containerId: decodeAny<{containerId: string}>(event).containerId};
    case '/tasks/resumed': return {kind: 'resumed', containerId: decodeAny<{containerId: string}>(event).containerId};
    default: return undefined;
  }
}
