/**
 * Cetus' own processes go before the containers of the node: a hundred that start at once must not keep the agent from its turns, or attaches and
 * waits run into their deadlines while there is work for all. The kernel shares processors among sessions (autogroups) where no control group says
 * otherwise; so it is the session of a process that leads one (detached) whose weight is raised, and what gets a session of its own is not favoured
 * with it. Where the kernel does not share so, or does not let us, everything goes on as before: under a service manager its unit says the weight.
 */
import fs from 'node:fs';

/** Nice value of the session: 9.5 times the weight of one at 0. */
const SESSION_NICE = -10;

/** `pid` leads a session of its own. Answers whether the kernel took it. */
export function favourSession(pid: number, proc = '/proc'): boolean {
  try {
    fs.writeFileSync(`${proc}/${pid}/autogroup`, String(SESSION_NICE));
    return true;
  } catch {
    return false; // no autogroups, no right to, or it has ended already: none is a reason not to serve
  }
}
