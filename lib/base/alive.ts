/** Whether a process of this pid exists, whoever's it is. Never throws; a pid may have come to be another program's. */
export function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (err) {
    return (err as NodeJS.ErrnoException).code === 'EPERM';
  }
}
