/** Images that are made here and taken elsewhere: commit, with the stock client. */
import {datacenterWithBusybox, removeContainersAfterEach} from '../harness/suite';

const dc = datacenterWithBusybox();
removeContainersAfterEach(dc);

const config = async (image: string): Promise<Record<string, unknown>> => JSON.parse(await dc.ok(['image', 'inspect', '-f', '{{json .Config}}', image])) as Record<string, unknown>;

describe('commit', () => {
  test('what a container has changed is an image, while it runs and when it has ended', async () => {
    await dc.ok(['run', '-d', '--name', 'writer', 'busybox', 'sh', '-c', 'mkdir /made; echo here > /made/file; rm /bin/rev; ln -s file /made/link; trap exit TERM; sleep 1000 & wait']);
    await dc.ok(['exec', 'writer', 'sh', '-c', 'until [ -L /made/link ]; do usleep 10000; done']);
    const id = await dc.ok(['commit', '-m', 'as it stands', '-a', 'jill', '-c', 'CMD ["cat", "/made/link"]', '-c', 'LABEL made="by commit"', '-c', 'EXPOSE 80', 'writer', 'made:1']);
    expect(id).toMatch(/^sha256:[0-9a-f]{64}$/);
    expect(await dc.ok(['inspect', '-f', '{{.State.Status}}', 'writer'])).toBe('running');
    expect(await dc.ok(['run', '--rm', 'made:1'])).toBe('here');
    expect((await dc.docker(['run', '--rm', 'made:1', 'ls', '/bin/rev'])).stderr).toMatch(/No such file/);
    expect(await config('made:1')).toMatchObject({Cmd: ['cat', '/made/link'], Labels: {made: 'by commit'}, ExposedPorts: {'80/tcp': {}}});
    expect(await dc.ok(['image', 'inspect', '-f', '{{.Author}} {{.Comment}} {{len .RootFS.Layers}} {{.Parent}}', 'made:1'])).toBe(`jill as it stands 2 ${await dc.ok(['inspect', '-f', '{{.Id}}', 'busybox'])}`);
    expect((await dc.ok(['history', '--format', '{{.Comment}}', 'made:1'])).split('\n')[0]).toBe('as it stands');
    await dc.ok(['stop', '-t', '5', 'writer']);
    await dc.ok(['commit', 'writer', 'made:2']);
    expect(await dc.ok(['run', '--rm', 'made:2', 'cat', '/made/file'])).toBe('here');
    const events = await dc.ok(['events', '--since', '5m', '--until', String(Date.now() / 1000), '--filter', 'container=writer', '--format', '{{.Action}}']);
    expect(events.split('\n').filter((e) => /pause|commit/.test(e))).toEqual(['pause', 'unpause', 'commit', 'commit']);
  });

  test('of one that was never started, without a name; and what cannot be', async () => {
    await dc.ok(['create', '--name', 'idle', 'busybox', 'true']);
    const id = await dc.ok(['commit', 'idle']);
    // Nothing was changed: no layer of its own, and a step of the history that says so.
    expect(await dc.ok(['image', 'inspect', '-f', '{{len .RootFS.Layers}} {{len .RepoTags}}', id])).toBe('1 0');
    expect(await dc.ok(['history', '-q', '--no-trunc', id])).toBe(`${id}\n<missing>`);
    await dc.ok(['rmi', id]);
    expect((await dc.docker(['commit', '-c', 'RUN x', 'idle'])).stderr).toMatch(/run is not a valid change command/);
    expect((await dc.docker(['commit', 'nobody'])).stderr).toMatch(/No such container: nobody/);
  });
});
