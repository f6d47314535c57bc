/**
 * Seccomp: the default filter, an allow-list of system calls with what each capability adds to it, and the translation of a profile that
 * came with `--security-opt seccomp=`. Everything not listed fails with EPERM. Pure, but for the question to the kernel's configuration.
 * Names are the kernel's; runc passes over those that its libseccomp does not know.
 */
import fs from 'node:fs';
import zlib from 'node:zlib';
import {CetusError} from '../../base/errors';
import {parseJson} from '../../base/json-syntax';

export interface SeccompArg { index: number; value: number; valueTwo?: number; op: string }
export interface SeccompRule { names: string[]; action: string; errnoRet?: number; args?: SeccompArg[] }
export interface OciSeccomp { defaultAction: string; defaultErrnoRet?: number; architectures?: string[]; flags?: string[]; syscalls: SeccompRule[] }

const ALLOW = 'SCMP_ACT_ALLOW';
const X32 = 'SCMP_ARCH_X32';
const EPERM = 1;
const ENOSYS = 38;

const words = (text: string): string[] => text.trim().split(/\s+/);

/** Harmless for everybody: files, memory, signals, time, processes, sockets. */
const ALWAYS = words(`
  accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64
  clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1
  epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64
  fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork
  fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake
  futimesat getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp
  getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit get_robust_list getrusage getsid getsockname getsockopt
  get_thread_area gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel ioctl io_destroy
  io_getevents io_pgetevents io_pgetevents_time64 ioprio_get ioprio_set io_setup io_submit ipc kill landlock_add_rule landlock_create_ruleset
  landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 madvise
  map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify
  mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall
  munmap name_to_handle_at nanosleep newfstatat _newselect open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect
  poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease pselect6 pselect6_time64 pwrite64 pwritev pwritev2 read readahead readlink
  readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2 restart_syscall rmdir rseq
  rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo
  sched_getaffinity sched_getattr sched_getparam sched_get_priority_max sched_get_priority_min sched_getscheduler sched_rr_get_interval
  sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop
  semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer
  setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit set_robust_list setsid setsockopt
  set_thread_area set_tid_address setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn
  socketcall socketpair splice stat stat64 statfs statfs64 statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete
  timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime
  timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4
  waitid waitpid write writev process_vm_readv process_vm_writev ptrace`);

/** Those of the machine's own kind, beside their 32-bit relatives. */
const BY_ARCHITECTURE: Record<string, {architectures: string[]; syscalls: string[]}> = {
  x64: {architectures: ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86', X32], syscalls: ['arch_prctl', 'modify_ldt']},
  arm64: {architectures: ['SCMP_ARCH_AARCH64', 'SCMP_ARCH_ARM'], syscalls: words('arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls')},
};

const BY_CAPABILITY: Record<string, string[]> = {
  CAP_DAC_READ_SEARCH: ['open_by_handle_at'],
  CAP_SYS_ADMIN: words(`bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount
    mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare`),
  CAP_SYS_BOOT: ['reboot'],
  CAP_SYS_CHROOT: ['chroot'],
  CAP_SYS_MODULE: words('delete_module init_module finit_module'),
  CAP_SYS_PACCT: ['acct'],
  CAP_SYS_PTRACE: words('kcmp pidfd_getfd process_madvise'),
  CAP_SYS_RAWIO: words('iopl ioperm'),
  CAP_SYS_TIME: words('settimeofday stime clock_settime clock_settime64'),
  CAP_SYS_TTY_CONFIG: ['vhangup'],
  CAP_SYS_NICE: words('get_mempolicy mbind set_mempolicy set_mempolicy_home_node'),
  CAP_SYSLOG: ['syslog'],
  CAP_BPF: ['bpf'],
  CAP_PERFMON: ['perf_event_open'],
};

// personality(2): Linux, 32-bit Linux and "what is it now", each with and without address randomisation's flag.
const PERSONALITIES = [0x0, 0x0008, 0x20000, 0x20008, 0xffffffff];
/** All CLONE_NEW* flags: making namespaces is for those with CAP_SYS_ADMIN. */
const NEW_NAMESPACE_FLAGS = 0x7e020000;
const AF_VSOCK = 40;

/**
 * `x32`: does the kernel know the 64-bit calls with 32-bit pointers (amd64 only)? Where it does not, the filter need not know them either, and
 * libseccomp, which compiles the list anew for each architecture at every start and exec, has a third less to do.
 */
export function defaultSeccomp(capabilities: readonly string[], arch: string = process.arch, x32 = true): OciSeccomp {
  const own = BY_ARCHITECTURE[arch];
  const has = (name: string): boolean => capabilities.includes(name);
  const syscalls: SeccompRule[] = [
    {names: [...ALWAYS, ...own?.syscalls ?? [], ...Object.entries(BY_CAPABILITY).flatMap(([capability, names]) => (has(capability) ? names : []))], action: ALLOW},
    ...PERSONALITIES.map((value) => ({names: ['personality'], action: ALLOW, args: [{index: 0, value, op: 'SCMP_CMP_EQ'}]})),
    // Virtual machines' sockets reach past network namespaces.
    {names: ['socket'], action: ALLOW, args: [{index: 0, value: AF_VSOCK, op: 'SCMP_CMP_NE'}]},
  ];
  if (!has('CAP_SYS_ADMIN')) {
    syscalls.push({names: ['clone'], action: ALLOW, args: [{index: 0, value: NEW_NAMESPACE_FLAGS, valueTwo: 0, op: 'SCMP_CMP_MASKED_EQ'}]});
    // Its flags are behind a pointer, where a filter cannot look: "no such call" makes libraries fall back to clone.
    syscalls.push({names: ['clone3'], action: 'SCMP_ACT_ERRNO', errnoRet: ENOSYS});
  }
  return {defaultAction: 'SCMP_ACT_ERRNO', defaultErrnoRet: EPERM, ...(own ? {architectures: own.architectures.filter((name) => x32 || name !== X32)} : {}), syscalls};
}

/** What the kernel's own configuration says; true where it cannot be found. */
export function kernelHasX32(release: string, read: (file: string) => Buffer = (file) => fs.readFileSync(file)): boolean {
  for (const file of ['/proc/config.gz', `/boot/config-${release}`]) {
    try {
      const bytes = read(file);
      const config = (file.endsWith('.gz') ? zlib.gunzipSync(bytes) : bytes).toString('latin1');
      // The first name since 5.19, the second before.
      return !/^# CONFIG_X86_X32(_ABI)? is not set$/m.test(config);
    } catch {
      // Not every kernel shows it in both places.
    }
  }
  return true;
}

interface ProfileRule { names?: string[]; name?: string; action: string; errnoRet?: number; args?: SeccompArg[] | null; includes?: Condition; excludes?: Condition }
interface Condition { caps?: string[]; arches?: string[]; minKernel?: string }
interface Profile {
  defaultAction?: string;
  defaultErrnoRet?: number;
  architectures?: string[];
  archMap?: {architecture: string; subArchitectures?: string[] | null}[];
  flags?: string[];
  syscalls?: ProfileRule[] | null;
}

const PROFILE_ARCHITECTURE: Record<string, string> = {x64: 'amd64', arm64: 'arm64'};
const SCMP_ARCHITECTURE: Record<string, string> = {x64: 'SCMP_ARCH_X86_64', arm64: 'SCMP_ARCH_AARCH64'};

/** A profile in Docker's own format (conditions, archMap) as runc takes it; `invalid` where it is none. */
export function customSeccomp(text: string, capabilities: readonly string[], kernelVersion: string, arch: string = process.arch): OciSeccomp {
  let profile: Profile;
  try {
    profile = parseJson(text) as Profile;
  } catch (err) {
    throw new CetusError('invalid', `Decoding seccomp profile failed: ${(err as Error).message}`, {cause: err});
  }
  if (typeof profile.defaultAction !== 'string') throw new CetusError('invalid', 'Decoding seccomp profile failed: defaultAction is missing');
  if (profile.archMap?.length && profile.architectures?.length) throw new CetusError('invalid', "both 'architectures' and 'archMap' are specified in the seccomp profile, use either 'architectures' or 'archMap'");
  const mapped = profile.archMap?.find((a) => a.architecture === SCMP_ARCHITECTURE[arch]);
  const architectures = mapped ? [mapped.architecture, ...mapped.subArchitectures ?? []] : profile.architectures;
  const meets = (c: Condition | undefined): boolean => !c || ((!c.arches?.length || c.arches.includes(PROFILE_ARCHITECTURE[arch] ?? arch))
    && (c.caps ?? []).every((cap) => capabilities.includes(cap)) && (!c.minKernel || atLeast(kernelVersion, c.minKernel)));
  const excluded = (c: Condition | undefined): boolean => Boolean(c && (c.arches?.includes(PROFILE_ARCHITECTURE[arch] ?? arch)
    || c.caps?.some((cap) => capabilities.includes(cap)) || (c.minKernel && atLeast(kernelVersion, c.minKernel))));
  const syscalls = (profile.syscalls ?? []).filter((rule) => meets(rule.includes) && !excluded(rule.excludes)).map((rule): SeccompRule => {
    if (rule.name && rule.names?.length) throw new CetusError('invalid', "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'");
    return {
      names: rule.names ?? [rule.name ?? ''], action: rule.action, ...(rule.errnoRet === undefined ? {} : {errnoRet: rule.errnoRet}),
      ...(rule.args?.length ? {args: rule.args} : {}),
    };
  });
  return {defaultAction: profile.defaultAction, ...(profile.defaultErrnoRet === undefined ? {} : {defaultErrnoRet: profile.defaultErrnoRet}),
    ...(architectures ? {architectures} : {}), ...(profile.flags ? {flags: profile.flags} : {}), syscalls};
}

function atLeast(version: string, minimum: string): boolean {
  const [a, b] = [version, minimum].map((v) => v.split('.').map((n) => Number.parseInt(n, 10) || 0));
  return a[0] !== b[0] ? a[0] > b[0] : (a[1] ?? 0) >= (b[1] ?? 0);
}
