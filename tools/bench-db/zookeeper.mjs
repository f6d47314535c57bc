// Three ZooKeeper servers from the distribution's jars; both systems use the same three.
import {spawn} from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import {freePorts, waitFor} from './processes.mjs';

const JARS = ['/usr/share/java/zookeeper.jar', '/usr/share/java/slf4j-simple.jar'];
const JVM = ['-Xmx64m', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-XX:-UsePerfData', '-Dorg.slf4j.simpleLogger.defaultLogLevel=warn'];
/** The grain in which sessions expire. */
const TICK_MS = 200;

const role = (port) => new Promise((resolve) => {
  const socket = net.connect({host: '127.0.0.1', port, timeout: 2000}, () => socket.write('srvr'));
  let answer = '';
  socket.setEncoding('utf8').on('data', (text) => { answer += text; });
  socket.on('timeout', () => socket.destroy()).on('error', () => undefined);
  socket.on('close', () => resolve(/^Mode: (\w+)/m.exec(answer)?.[1]));
});

export async function startZooKeeper(dir) {
  const ports = await freePorts(9);
  const children = [1, 2, 3].map((id) => {
    const home = path.join(dir, `zookeeper-${id}`);
    fs.mkdirSync(path.join(home, 'data'), {recursive: true});
    fs.writeFileSync(path.join(home, 'data', 'myid'), `${id}\n`);
    fs.writeFileSync(path.join(home, 'zoo.cfg'), [
      `tickTime=${TICK_MS}`, 'initLimit=100', 'syncLimit=25', `dataDir=${path.join(home, 'data')}`, `clientPort=${ports[id - 1]}`, 'clientPortAddress=127.0.0.1',
      'maxClientCnxns=0', 'maxSessionTimeout=60000', 'admin.enableServer=false', '4lw.commands.whitelist=srvr',
      ...[1, 2, 3].map((n) => `server.${n}=127.0.0.1:${ports[n + 2]}:${ports[n + 5]}`), ''].join('\n'));
    const log = fs.openSync(path.join(home, 'log'), 'a');
    return spawn('setpriv', ['--pdeathsig', 'KILL', 'java', ...JVM, '-cp', JARS.join(':'), 'org.apache.zookeeper.server.quorum.QuorumPeerMain', path.join(home, 'zoo.cfg')], {stdio: ['ignore', log, log]});
  });
  await waitFor('three ZooKeeper servers to serve', async () => (await Promise.all(ports.slice(0, 3).map(role))).every(Boolean));
  return {
    address: ports.slice(0, 3).map((port) => `127.0.0.1:${port}`).join(','),
    stop: () => Promise.all(children.map((child) => new Promise((resolve) => {
      if (child.exitCode !== null || child.signalCode !== null) return resolve();
      child.once('exit', resolve);
      child.kill('SIGKILL');
      return undefined;
    }))),
  };
}
