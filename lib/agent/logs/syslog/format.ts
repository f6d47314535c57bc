/** One message of syslog, byte for byte as the Engine's driver writes it. Pure. */
export type Format = 'unix' | 'rfc3164' | 'rfc5424' | 'rfc5424micro';
/** stdout is information, stderr an error. */
const SEVERITY = {1: 6, 2: 3} as const;

export interface Sender { facility: number; format: Format; hostname: string; tag: string; pid: number; /** The frames of RFC 5425: only rfc5424 over TLS has them. */ counted: boolean }

const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];
const two = (n: number): string => String(n).padStart(2, '0');

export function message(sender: Sender, stream: 1 | 2, line: Buffer, ns: bigint): Buffer {
  const head = Buffer.from(header(sender, sender.facility | SEVERITY[stream], ns));
  const whole = Buffer.concat([head, line, NEWLINE]);
  return sender.counted ? Buffer.concat([Buffer.from(`${whole.length} `), whole]) : whole;
}
const NEWLINE = Buffer.from('\n');

function header({format, hostname, tag, pid}: Sender, priority: number, ns: bigint): string {
  switch (format) {
    case 'unix': return `<${priority}>${stamp(ns)} ${tag}[${pid}]: `;
    case 'rfc3164': return `<${priority}>${stamp(ns)} ${hostname} ${tag}[${pid}]: `;
    case 'rfc5424': return `<${priority}>1 ${iso(ns, 0)} ${hostname} ${tag} ${pid} ${tag} - `;
    case 'rfc5424micro': return `<${priority}>1 ${iso(ns, 6)} ${hostname} ${tag} ${pid} ${tag} - `;
  }
}

const local = (ns: bigint): Date => new Date(Number(ns / 1_000_000n));
const clock = (at: Date): string => `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;

/** "Jan  2 15:04:05", in the node's time. */
function stamp(ns: bigint): string {
  const at = local(ns);
  return `${MONTHS[at.getMonth()]} ${String(at.getDate()).padStart(2)} ${clock(at)}`;
}

function iso(ns: bigint, digits: number): string {
  const at = local(ns);
  const east = -at.getTimezoneOffset();
  const zone = east === 0 ? 'Z' : `${east < 0 ? '-' : '+'}${two(Math.floor(Math.abs(east) / 60))}:${two(Math.abs(east) % 60)}`;
  const fraction = digits ? `.${(ns % 1_000_000_000n).toString().padStart(9, '0').slice(0, digits)}` : '';
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}T${clock(at)}${fraction}${zone}`;
}
