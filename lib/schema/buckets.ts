import type {BucketDefinition} from './bucket';

/** Every bucket of Cetus. A change of `fields` needs a higher `version`; moray then reindexes in the background. */
export const BUCKETS = {
  accounts: {name: 'accounts', version: 1, fields: {name: {type: 'string', unique: true}}},
  nodes: {name: 'nodes', version: 1, fields: {name: {type: 'string', unique: true}, availability: {type: 'string'}, liveness: {type: 'string'}}},
  remains: {name: 'remains', version: 1, fields: {nodeId: {type: 'string'}}},
  reservations: {name: 'reservations', version: 1, fields: {}},
  containers: {
    name: 'containers', version: 3,
    fields: {
      account: {type: 'string'}, name: {type: 'string'}, accountName: {type: 'string', unique: true}, nodeId: {type: 'string'},
      status: {type: 'string'}, imageId: {type: 'string'}, createdAtNs: {type: 'number'}, volumeIds: {type: 'string[]'},
      autoRemove: {type: 'boolean'}, wantsStart: {type: 'boolean', path: 'observation.wantsStart'}, movingFrom: {type: 'string', path: 'moving.from'},
    },
  },
  images: {name: 'images', version: 2, fields: {account: {type: 'string'}, id: {type: 'string'}, manifestDigest: {type: 'string'}, parent: {type: 'string'}, nodes: {type: 'string[]'}, copies: {type: 'number'}}},
  image_refs: {name: 'image_refs', version: 1, fields: {account: {type: 'string'}, reference: {type: 'string'}, imageId: {type: 'string'}}},
  networks: {name: 'networks', version: 1, fields: {account: {type: 'string'}, name: {type: 'string'}, accountName: {type: 'string', unique: true}, subnet: {type: 'string'}, driver: {type: 'string'}}},
  subnets: {name: 'subnets', version: 1, fields: {}},
  vnis: {name: 'vnis', version: 1, fields: {networkId: {type: 'string'}}},
  addresses: {name: 'addresses', version: 1, fields: {networkId: {type: 'string'}, containerId: {type: 'string'}, address: {type: 'ip'}}},
  ports: {name: 'ports', version: 1, fields: {nodeId: {type: 'string'}, containerId: {type: 'string'}, hostPort: {type: 'number'}, protocol: {type: 'string'}}},
  /** Key protocol/port: written by whoever takes the port at a single address, never read. Its etag is what counts (lib/jobs/publish.ts). */
  single_ports: {name: 'single_ports', version: 1, fields: {}},
  ingresses: {name: 'ingresses', version: 1, fields: {}},
  volumes: {name: 'volumes', version: 1, fields: {account: {type: 'string'}, name: {type: 'string'}, accountName: {type: 'string', unique: true}, nodeId: {type: 'string'}, anonymous: {type: 'boolean'}}},
  execs: {name: 'execs', version: 1, fields: {account: {type: 'string'}, containerId: {type: 'string'}, createdAt: {type: 'date'}}},
  events: {name: 'events', version: 1, tombstoneRetentionMs: 60_000, fields: {account: {type: 'string'}, type: {type: 'string'}, action: {type: 'string'}, actorId: {type: 'string'}, timeNs: {type: 'number'}}},
  jobs: {
    name: 'jobs', version: 1,
    fields: {
      account: {type: 'string'}, workflow: {type: 'string'}, target: {type: 'string'}, execution: {type: 'string'},
      leaseUntilMs: {type: 'number', path: 'lease.untilMs'}, createdAtNs: {type: 'number'}, endedAt: {type: 'date'}, requestId: {type: 'string'},
    },
  },
  /** Renewed for ever, by the hundred a second in a large fleet: nobody needs what was a minute ago. */
  leases: {name: 'leases', version: 1, tombstoneRetentionMs: 60_000, fields: {}},
  authority: {name: 'authority', version: 1, fields: {}},
  tokens: {name: 'tokens', version: 1, fields: {expiresAtMs: {type: 'number'}}},
  identities: {name: 'identities', version: 1, fields: {}},
  revocations: {name: 'revocations', version: 1, fields: {nodeId: {type: 'string'}, notAfterMs: {type: 'number'}}},
  locks: {name: 'locks', version: 1, fields: {jobId: {type: 'uuid'}}},
} as const satisfies Record<string, BucketDefinition>;

export type BucketName = keyof typeof BUCKETS;
