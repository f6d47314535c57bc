// A sitter over its real server and ZooKeeper, of what has been built: node sitter.cjs FILE
const fs = require('node:fs');
const path = require('node:path');
const dist = path.join(__dirname, '../../../dist');
const {createLog} = require(path.join(dist, 'base/log'));
const {createPostgresServer} = require(path.join(dist, 'manatee/postgres/server'));
const {createCoordination} = require(path.join(dist, 'manatee/zookeeper/coordination'));
const {monotonic: clock} = require(path.join(dist, 'manatee/monotonic'));
const {Sitter} = require(path.join(dist, 'manatee/sitter'));

const config = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
const log = createLog({name: config.self.id, level: 'debug'});
(async () => {
  const {self, sessionTimeoutMs} = config;
  const server = await createPostgresServer({...config.server, self, clock, log});
  const coordination = createCoordination({...config.zookeeper, id: self.id, sessionTimeoutMs, clock, log});
  const sitter = new Sitter({self, policy: config.policy, coordination, server, clock, wallClock: () => new Date().toISOString(), sessionTimeoutMs, log});
  sitter.start();
  process.once('SIGTERM', () => { void sitter.retire().then(() => process.exit(0)); });
})().catch((err) => { log.fatal({err}, 'no sitter'); process.exit(1); });
