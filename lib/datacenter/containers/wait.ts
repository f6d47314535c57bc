/**
 * `docker wait`. Armed when it resolves: it subscribes first and looks second, so no exit after that moment is missed, also when the
 * container is removed at once (--rm): the last known observation holds the exit code. Where the node is lost it fails: nobody will tell.
 */
import {CetusError} from '../../base/errors';
import type {Container} from '../../schema/container';
import type {Context} from '../context';
import type {Caller, WaitCondition} from '../verbs';
import {endsUnheard} from './lost';
import {peekContainer} from './resolve';

export interface Exit { exitCode: number; error?: string }

const stopped = (c: Container): boolean => c.status !== 'running' && c.status !== 'paused' && c.status !== 'restarting';

/** Has the condition come true, given the container when the wait was armed and now? */
export function satisfied(condition: WaitCondition, armed: Container, now: Container): boolean {
  switch (condition) {
    case 'not-running': return stopped(now);
    case 'removed': return now.status === 'dead';
    case 'next-exit': {
      if (now.observation.finishedAt === armed.observation.finishedAt) return false;
      // Seen late: it has exited and somebody started it again. The restart policy's restarts are not exits.
      return stopped(now) || (now.status === 'running' && now.observation.restartCount === 0);
    }
  }
}

/** As the Engine: who finds it stopped already is told why its last start failed; who waited for an end hears of that end only. */
const exitOf = (c: Container, waited: boolean): Exit => ({exitCode: c.observation.exitCode, ...(c.observation.error && stopped(c) && !waited ? {error: c.observation.error} : {})});

export async function armWait(context: Context, caller: Caller, container: Container, condition: WaitCondition): Promise<{outcome: Promise<Exit>}> {
  let settle!: (exit: Exit) => void;
  let fail!: (err: unknown) => void;
  const outcome = new Promise<Exit>((resolve, reject) => {
    settle = resolve;
    fail = reject;
  });
  // Whoever armed the wait may hang up before it looks at the outcome.
  outcome.catch(() => undefined);

  let armed = container;
  let last = container;
  let looked = false;
  let waited = false;
  const look = (now: Container | undefined, before: Container | undefined): void => {
    const newest = now ?? before;
    if (newest && newest.observation.generation >= last.observation.generation) last = newest;
    if (!now) settle(exitOf(last, true));
    else if (looked && satisfied(condition, armed, last)) settle(exitOf(last, waited));
  };
  const stopListening = context.fleet.onLiveness?.((node) => {
    if (node.id === last.nodeId) unlessLost();
  });
  /** One that is started elsewhere is waited for. */
  const unlessLost = (): void => {
    const err = endsUnheard(context, last);
    if (err) fail(err);
  };
  const unsubscribe = await context.views.subscribe(caller.account, container.id, look);
  const onAbort = (): void => fail(new CetusError('canceled', 'the client went away'));
  caller.signal?.addEventListener('abort', onAbort, {once: true});
  void outcome.catch(() => undefined).finally(() => {
    unsubscribe();
    stopListening?.();
    caller.signal?.removeEventListener('abort', onAbort);
    // The view may not have heard yet what the report said.
    context.views.touch(caller.account, container.id);
  });

  try {
    const fresh = await peekContainer(context, caller.account, container.id);
    armed = fresh ?? container;
    looked = true;
    look(fresh, container);
    const lost = endsUnheard(context, last);
    if (lost) throw lost;
    waited = true;
    if (caller.signal?.aborted) onAbort();
  } catch (err) {
    fail(err);
    throw err;
  }
  return {outcome};
}
