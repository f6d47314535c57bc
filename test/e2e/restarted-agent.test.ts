/** The agent alone ends, by hand or by force, and comes back: what stands of the streams that it served, and what is cut. */
import {type ChildProcess, spawn} from 'node:child_process';
import {Aftermath} from '../harness/aftermath';
import {datacenterWithBusybox} from '../harness/suite';
import {until} from '../harness/wait';

const dc = datacenterWithBusybox();
const after = new Aftermath(dc);
const clients: ChildProcess[] = [];
afterEach(async () => {
  for (const client of clients.splice(0)) client.kill('SIGKILL');
  await dc.docker(['rm', '-f', 'reader']);
}, 240_000);

/** A client whose stdin stays open, with what it has printed. */
function attached(args: string[]): {client: ChildProcess; said(): string} {
  const client = spawn('docker', args, {env: {...process.env, DOCKER_HOST: dc.host}, stdio: ['pipe', 'pipe', 'pipe']});
  clients.push(client);
  let text = '';
  client.stdout!.on('data', (chunk: Buffer) => { text += chunk.toString(); });
  client.stdin!.on('error', () => undefined);
  return {client, said: () => text};
}

async function restartAgent(signal: NodeJS.Signals): Promise<void> {
  await dc.kill(await dc.part('agent', 'reader'), signal);
  await after.serves();
}

describe.each(['SIGTERM', 'SIGKILL'] as const)('after %s of the agent', (signal) => {
  test('docker run -i: the process and its stdin are still there, for whoever attaches', async () => {
    const {client, said} = attached(['run', '-i', '--name', 'reader', 'busybox', 'cat']);
    client.stdin!.write('one\n');
    await until('it to answer', () => said() === 'one\n');
    await restartAgent(signal);
    expect(await dc.ok(['inspect', '-f', '{{.State.Running}} {{.RestartCount}}', 'reader'])).toBe('true 0');
    const again = await dc.docker(['attach', 'reader'], {input: 'two\n'});
    expect(again).toMatchObject({status: 0, stdout: 'two\n'});
    expect(await dc.ok(['logs', 'reader'])).toBe('one\ntwo');
    expect(await dc.ok(['inspect', '-f', '{{.State.Status}} {{.State.ExitCode}}', 'reader'])).toBe('exited 0');
  }, 240_000);

  test('docker run -di: clients may come and go as before', async () => {
    await dc.ok(['run', '-di', '--name', 'reader', 'busybox', 'cat']);
    await restartAgent(signal);
    for (const line of ['one', 'two']) {
      const {client, said} = attached(['attach', 'reader']);
      client.stdin!.write(`${line}\n`);
      await until('it to answer', () => said() === `${line}\n`);
      client.kill('SIGKILL');
    }
    expect(await dc.ok(['inspect', '-f', '{{.State.Running}}', 'reader'])).toBe('true');
  }, 240_000);

  test('docker exec -i: nobody can come back to it, so its stdin ends, and it does what it has to do', async () => {
    await dc.ok(['run', '-d', '--name', 'reader', 'busybox', 'sleep', '1000']);
    const {client, said} = attached(['exec', '-i', 'reader', 'sh', '-c', 'read line; echo "got $line"; cat > /rest; echo over > /over']);
    client.stdin!.write('one\ntwo\n');
    await until('it to answer', () => said() === 'got one\n');
    await restartAgent(signal);
    await until('the exec to end', async () => (await dc.docker(['exec', 'reader', 'cat', '/over'])).stdout === 'over\n');
    expect(await dc.ok(['exec', 'reader', 'cat', '/rest'])).toBe('two');
    await until('the exec to be forgotten', async () => (await dc.ok(['top', 'reader'])).split('\n').length === 2);
  }, 240_000);
});
