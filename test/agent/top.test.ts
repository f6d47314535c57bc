/** docker top by the machine's own ps: only the processes that were asked for, whatever the arguments. */
import {top} from '../../lib/agent/top';

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
