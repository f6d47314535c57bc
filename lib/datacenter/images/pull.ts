/** `docker pull`: one name, or every tag of a repository one after the other; the words around the node's lines are made here. */
import {createHash} from 'node:crypto';
import type {ChainResult} from '../../schema/chains';
import type {ProgressMessage, RegistryAuth} from '../../schema/docker';
import {familiarReference, formatReference, parseImageName, parseReference, type Reference} from '../../schema/reference';
import type {Context} from '../context';
import {checkPlatformText} from '../create/platform';
import type {Caller} from '../verbs';
import {tagsOf} from './registry';
import {SharedPulls} from './shared-pulls';

/** Another endpoint's clients, or other credentials, may be at the same name: as long as a pull may take. Who leaves waits no longer. */
const LOCK_WAIT_MS = 6 * 3_600_000;

interface PullOptions { platform?: string; allTags?: boolean }
type Result = ChainResult<'image.pull'>;

export class Pulls {
  private readonly shared = new SharedPulls<Result>();

  constructor(private readonly context: Context) {}

  async *pull(caller: Caller, text: string, options: PullOptions, auth?: RegistryAuth): AsyncGenerator<ProgressMessage> {
    if (options.platform) checkPlatformText(options.platform);
    if (!options.allTags) {
      const reference = parseImageName(text);
      yield* this.one(caller, reference, familiarReference(reference), options, auth);
      return;
    }
    const repository = parseReference(text);
    let newer = false;
    for (const tag of await tagsOf(this.context, caller, repository, auth)) newer = !(yield* this.one(caller, {...repository, tag}, '', options, auth)).upToDate || newer;
    yield status(newer, familiarReference(repository));
  }

  /** `shown` '': its status is not said, for more tags follow. */
  private async *one(caller: Caller, reference: Reference, shown: string, options: PullOptions, auth?: RegistryAuth): AsyncGenerator<ProgressMessage, Result> {
    let begun = false;
    const said = new Set<string>();
    const id = reference.digest ?? reference.tag;
    const params = {account: caller.account, reference: formatReference(reference), ...(options.platform ? {platform: options.platform} : {})};
    const follow = this.shared.follow(pullKey(params, auth), caller.signal, (onProgress, signal) => this.context.run(caller, 'image.pull', params, {
      secrets: {auth}, onProgress, signal, lockWaitMs: LOCK_WAIT_MS, onWaiting: () => onProgress({status: 'Waiting for another pull of this image', id}),
    }));
    for (;;) {
      const next = await follow.next();
      if (!begun && (!next.done ? !next.value.status?.startsWith('Pulling from ') : true))
        yield {status: `Pulling from ${reference.repository}`, id};
      begun = true;
      if (next.done) {
        const result = next.value;
        if (!said.has('Digest')) yield {status: `Digest: ${result.digest}`};
        if (shown !== '' && !said.has('Status')) yield status(!result.upToDate, shown);
        return result;
      }
      const word = /^(Digest|Status): /.exec(next.value.status ?? '');
      if (word) said.add(word[1]!);
      yield next.value;
    }
  }
}

const status = (newer: boolean, shown: string): ProgressMessage => ({status: `Status: ${newer ? 'Downloaded newer image' : 'Image is up to date'} for ${shown}`});

/** The credentials' digest, not themselves: keys live as long as pulls do. */
function pullKey(params: object, auth: unknown): string {
  return `${JSON.stringify(params)} ${createHash('sha256').update(JSON.stringify(auth ?? null)).digest('hex')}`;
}
