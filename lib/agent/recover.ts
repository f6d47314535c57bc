/**
 * At the agent's start: what is on disk, what the runtime has and what the network has are compared, and made one again.
 * Order: units first (they say what belongs to somebody), then running processes are taken up, then what belongs to nobody goes.
 */
import {ContainerUnit} from './container/unit';
import type {Supervisor, SupervisorParts} from './supervisor';

export interface Recovery { containers: number; reattached: number; orphans: string[]; sandboxes: string[] }

export async function recover(supervisor: Supervisor, parts: SupervisorParts): Promise<Recovery> {
  const {runtime, network, store, log} = parts;
  await Promise.all([store.sweep(), parts.volumes.sweep()]);
  const unreadable: string[] = [];
  const found: ContainerUnit[] = [];
  for (const id of store.containerIds()) {
    const stored = store.loadSpec(id);
    if (!stored?.spec?.id) {
      unreadable.push(id);
      continue;
    }
    found.push(new ContainerUnit(parts, stored, store.loadRecord(id)));
  }
  await parts.volumes.recover(found.filter((unit) => unit.mayRun).map((unit) => unit.spec));
  const [inRuntime, sandboxes] = await Promise.all([runtime.list(), network.sandboxes()]);
  // Not before: an exit that is heard between here and the taking up would be saved without what the FIFOs still hold.
  for (const unit of found) supervisor.units.set(unit.id, unit);
  const owned = (id: string): boolean => supervisor.units.has(id);
  const orphans = [...new Set([...unreadable, ...inRuntime.map((c) => c.id).filter((id) => !owned(id))])];
  // A sandbox without a record that needs it is an ended container's: its unit's clean-up takes it.
  const lostSandboxes = sandboxes.filter((id) => !owned(id) && !orphans.includes(id));

  const units = [...supervisor.units.values()];
  await each(units, async (unit) => {
    await parts.execs.recover(unit.id);
    await supervisor.reconcile(unit);
  });
  await supervisor.thaw();
  await each(orphans, async (id) => {
    await supervisor.eraseOrphan(id).catch((err: unknown) => log.error({err, containerId: id}, 'a container that belongs to nobody could not be taken away'));
  });
  await each(lostSandboxes, async (id) => {
    await network.removeSandbox(id).catch((err: unknown) => log.error({err, containerId: id}, 'a network sandbox that belongs to nobody could not be taken away'));
  });
  await supervisor.settled();
  const recovery = {containers: supervisor.units.size, reattached: supervisor.running, orphans, sandboxes: lostSandboxes};
  log.info(recovery, 'the node\'s containers have been taken up');
  return recovery;
}

/** A node has hundreds of containers; the runtime is asked about sixteen at a time. */
async function each<T>(items: T[], work: (item: T) => Promise<void>): Promise<void> {
  const queue = [...items];
  await Promise.all(Array.from({length: Math.min(16, queue.length)}, async () => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) await work(item);
  }));
}
