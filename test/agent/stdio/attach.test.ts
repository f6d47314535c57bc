/** Whose end is the end of a process's stdin: the client's, however it came about, and not the agent's. */
import {Duplex, Writable} from 'node:stream';
import {systemClock} from '../../../lib/base/clock';
import {attachStream} from '../../../lib/agent/stdio/attach';
import {StdioHub} from '../../../lib/agent/stdio/hub';
import {until} from '../../harness/wait';

const OPTIONS = {stdin: true, stdout: true, stderr: true, tty: false, closesStdin: true, detachKeys: ''};

function attached(options = OPTIONS): {hub: StdioHub; client: Duplex; ended: () => number; over: Promise<unknown>} {
  const hub = new StdioHub(options.tty, systemClock);
  let ended = 0;
  const io = {
    stdin: new Writable({write: (_chunk, _encoding, done) => done()}),
    stdout: {read: () => undefined, pause: () => undefined, resume: () => undefined},
    closeStdin: async () => { ended += 1; },
    detach: () => undefined,
  };
  const client = new Duplex({read: () => undefined, write: (_chunk, _encoding, done) => done()});
  const over = attachStream(hub, client, options);
  hub.connect(io);
  return {hub, client, ended: () => ended, over};
}

const turns = async (): Promise<void> => {
  for (let n = 0; n < 20; n += 1) await new Promise((resolve) => { setImmediate(resolve); });
};

test.each([
  ['says that nothing follows', (client: Duplex) => { client.push(null); }],
  ['is reset', (client: Duplex) => { client.destroy(new Error('read ECONNRESET')); }],
  ['is gone', (client: Duplex) => { client.destroy(); }],
])('a client that %s ends the stdin that was its own', async (_what, leave) => {
  const {client, ended} = attached();
  await turns();
  leave(client);
  await until('stdin to end', () => ended() === 1, 1_000);
});

test('one that attached to a stdin of others ends nothing', async () => {
  const {client, ended, over} = attached({...OPTIONS, closesStdin: false});
  await turns();
  client.destroy(new Error('read ECONNRESET'));
  await over;
  await turns();
  expect(ended()).toBe(0);
});

test.each([
  ['lets its clients go', (hub: StdioHub) => hub.cutClients()],
  ['goes', (hub: StdioHub) => hub.suspend()],
])('an agent that %s ends no stdin', async (_what, end) => {
  const {hub, client, ended, over} = attached();
  await turns();
  end(hub);
  await over;
  await turns();
  expect(client.destroyed).toBe(true);
  expect(ended()).toBe(0);
});
