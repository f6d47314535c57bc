/** What a sitter does before it touches the Postgres that it finds. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {sitter} from '../../lib/main/sitter';
import {lockFile} from '../../lib/main/up/instance';

test('a second sitter on one directory is refused before it could end the first one\'s Postgres', async () => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-sitter-'));
  try {
    const config = path.join(dir, 'sitter.json');
    fs.writeFileSync(config, JSON.stringify({
      id: 'a', host: '127.0.0.1', port: 1, statusListen: '127.0.0.1:0', dataDir: path.join(dir, 'a'), zookeeper: {servers: '127.0.0.1:1', path: '/c', sessionTimeoutMs: 4000},
      passwordFiles: {client: path.join(dir, 'none'), replication: path.join(dir, 'none')}, oneNodeWriteMode: false, settings: {}, logLevel: 'fatal',
    }));
    fs.mkdirSync(path.join(dir, 'a'));
    const unlock = await lockFile(path.join(dir, 'a', 'sitter.lock'), 'taken');
    await expect(sitter(config)).rejects.toThrow('another cetus sitter runs on');
    unlock();
  } finally {
    fs.rmSync(dir, {recursive: true});
  }
});
