/** The smallest spec with which busybox runs under runc: for tests of the runtime, not of Docker's defaults. */
import type {OciSpec} from '../../lib/agent/runtime/runtime';

export function plainSpec(id: string, args: string[], terminal = false): OciSpec {
  return {
    ociVersion: '1.0.2',
    process: {
      terminal, user: {uid: 0, gid: 0}, args, env: ['PATH=/bin'], cwd: '/', noNewPrivileges: false,
      capabilities: {bounding: ['CAP_KILL'], effective: ['CAP_KILL'], permitted: ['CAP_KILL']}, oomScoreAdj: 0,
    },
    root: {path: 'rootfs'},
    hostname: 'test',
    mounts: [
      {destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid', 'noexec', 'nodev']},
      {destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k']},
      {destination: '/dev/pts', type: 'devpts', source: 'devpts', options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5']},
    ],
    linux: {
      cgroupsPath: `/cetus-test/${id}`,
      namespaces: ['pid', 'ipc', 'uts', 'mount', 'network'].map(type => ({type})),
      resources: {devices: [{allow: true, access: 'rwm'}]},
    },
  };
}
