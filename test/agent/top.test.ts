/** docker top by the machine's own ps: only the processes that were asked for, whatever the arguments. */
import {parsePs, top} from '../../lib/agent/top';

it('arguments that exclude a choice of processes are filtered', async () => {
  const {Titles, Processes} = await top([process.pid], '-ef --forest');
  expect(Processes.map((row) => row[Titles.indexOf('PID')])).toEqual([String(process.pid)]);
});

it('a header that calls something else PID shows nobody else', async () => {
  // Of another process the number of threads is that of nobody asked for; of these it is.
  const few = Array.from({length: 64}, (_, n) => n + 1);
  await expect(top(few, '-eonlwp=PID,pid=X,args --forest')).rejects.toMatchObject({kind: 'invalid'});
  await expect(top([process.pid], '-e\0f')).rejects.toMatchObject({kind: 'invalid'});
});

it('processes are sorted and cut as asked, though ps takes no choice of processes then', async () => {
  for (const args of ['-eo pid,args --sort=-pid', '-ef --cols=200 --sort=pid', '--sort=-pid -ef'])
    expect((await top([process.pid], args)).Processes).toHaveLength(1);
  await expect(top([1], '-eo nlwp=PID --sort=pid')).rejects.toMatchObject({kind: 'invalid'});
  await expect(top([1], '-e --format=nlwp=PID --sort=pid')).rejects.toMatchObject({kind: 'invalid'});
});

it('words before the pid are no pid, and are not repeated', async () => {
  await expect(top([process.pid], '-eo args,pid --forest')).rejects.toMatchObject({kind: 'invalid', message: expect.stringMatching(/^unexpected pid in the output of ps: /)});
  expect(() => parsePs('COMMAND PID\nmysqld --password=secret 17\n', [17])).toThrow(/^unexpected pid(?!.*secret)/);
  expect(parsePs('COMMAND PID\nsh 17\ncat 18\n', [17])).toEqual({Titles: ['COMMAND', 'PID'], Processes: [['sh', '17']]});
});

it('ps that fails without a word is named by its status', async () => {
  await expect(top([process.pid], '-A -N')).rejects.toMatchObject({kind: 'invalid', message: 'ps: exit status 1'});
});
