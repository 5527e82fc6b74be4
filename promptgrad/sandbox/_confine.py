"""Take from this process what code may not have, for good: files, network, other processes, threads.

The process of `Subprocess` executes this file by its path, before any code: it imports the standard library alone.
Linux alone has what it uses, and no part of it needs a privilege: a filter of system calls (seccomp) and rules for
files (Landlock). Both hold until the process ends, for it and for all that it would start.
"""

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Iterable

# System calls that code has no use for, by name: their numbers on x86_64 and on aarch64; -1: there is none.
DENIED = {
    # network
    **{"socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201)},
    **{"accept": (43, 202), "accept4": (288, 242), "sendto": (44, 206), "sendmsg": (46, 211), "sendmmsg": (307, 269)},
    # processes and threads
    **{"fork": (57, -1), "vfork": (58, -1), "clone": (56, 220), "clone3": (435, 435), "execve": (59, 221)},
    **{"execveat": (322, 281), "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "ptrace": (101, 117)},
    **{"rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "pidfd_send_signal": (424, 424)},
    **{"pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "process_vm_readv": (310, 270)},
    **{"process_vm_writev": (311, 271), "process_madvise": (440, 440), "kcmp": (312, 272)},
    **{"setpriority": (141, 140), "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119)},
    **{"sched_setattr": (314, 274), "setpgid": (109, 154), "setsid": (112, 157), "prlimit64": (302, 261)},
    **{"setrlimit": (160, 164)},
    # what rules for files do not cover
    **{"chmod": (90, -1), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, -1)},
    **{"fchown": (93, 55), "lchown": (94, -1), "fchownat": (260, 54), "utime": (132, -1), "utimes": (235, -1)},
    **{"futimesat": (261, -1), "utimensat": (280, 88), "setxattr": (188, 5), "lsetxattr": (189, 6)},
    **{"fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16)},
    **{"getxattr": (191, 8), "lgetxattr": (192, 9), "fgetxattr": (193, 10), "listxattr": (194, 11)},
    **{"llistxattr": (195, 12), "flistxattr": (196, 13), "quotactl_fd": (443, 443)},
    **{"inotify_init": (253, -1), "inotify_init1": (294, 26), "inotify_add_watch": (254, 27)},
    **{"fanotify_init": (300, 262), "fanotify_mark": (301, 263)},
    **{"name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "flock": (73, 32)},
    # other ways to other processes, and into the kernel
    **{"io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427)},
    **{"shmget": (29, 194), "shmat": (30, 196), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180)},
    **{"shmctl": (31, 195), "semop": (65, 193), "semctl": (66, 191), "semtimedop": (220, 192)},  # an id is a number
    **{"msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187), "mq_unlink": (241, 181)},
    **{"mq_timedsend": (242, 182), "mq_timedreceive": (243, 183), "mq_notify": (244, 184)},
    **{"mq_getsetattr": (245, 185), "ioprio_set": (251, 30), "sched_setparam": (142, 118)},
    **{"migrate_pages": (256, 238), "move_pages": (279, 239), "sync": (162, 81), "syncfs": (306, 267)},
    **{"add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "bpf": (321, 280)},
    **{"perf_event_open": (298, 241), "userfaultfd": (323, 282), "unshare": (272, 97), "setns": (308, 268)},
    **{"mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51)},
    **{"fsopen": (430, 430), "fsmount": (432, 432), "move_mount": (429, 429), "open_tree": (428, 428)},
    **{"mount_setattr": (442, 442), "init_module": (175, 105), "finit_module": (313, 273)},
    **{"delete_module": (176, 106), "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142)},
    **{"swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "quotactl": (179, 60), "syslog": (103, 116)},
    **{"settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171)},
    **{"clock_adjtime": (305, 266), "sethostname": (170, 161), "setdomainname": (171, 162), "capset": (126, 91)},
    **{"personality": (135, 92), "seccomp": (317, 277)},
}

# Of these two, what code may ask for: sizes, terminals and inheritance; and copies, flags and sizes of descriptors.
# The rest are locks and leases on files, signals to whoever owns a descriptor, and attributes of files.
BOUNDED = {
    "ioctl": ((16, 29), (0x5401, 0x802C542A, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)),
    "fcntl": ((72, 25), (0, 1, 2, 3, 4, 1030, 1031, 1032, 1033, 1034)),
}
NEWEST = 450
"""The first system call that is too new to be known here: it is there for nobody, as on an older kernel."""

_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # the column above, and the number in a filter
_ALLOW, _KILL, _REFUSE, _UNKNOWN = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026  # with EPERM, with ENOSYS
_READ_FILES, _READ_FOLDERS, _RUN = 1 << 2, 1 << 3, 1 << 0


def confine(readable: Iterable[str]) -> list[str]:
    """Give up all of it, as far as the system can; returns what is gone: "files", "network", "processes".

    Args:
        readable: Folders that stay readable.
    """
    if sys.platform != "linux" or sys.maxsize < 2**32:
        return []
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) != 0:  # PR_SET_NO_NEW_PRIVS
        return []
    libc.prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE
    _give_up_privileges(libc)
    gone = []
    if _close_files(libc, readable):
        gone.append("files")
    if _close_calls(libc):
        gone += ["network", "processes"]
    return gone


def _give_up_privileges(libc: ctypes.CDLL) -> None:
    header = struct.pack("Ii", 0x20080522, 0)  # the capabilities of this thread, in two words each
    libc.capset(header, struct.pack("6I", 0, 0, 0, 0, 0, 0))


def _close_files(libc: ctypes.CDLL, readable: Iterable[str]) -> bool:
    """Leave no access to files but reading in these folders."""
    version = libc.syscall(444, None, 0, 1)  # landlock_create_ruleset, which tells its version
    if version < 3:  # an earlier one lets files be truncated
        return False
    handled = (1 << (16 if version >= 5 else 15)) - 1
    network = 3 if version >= 4 else 0  # to bind and to connect
    scoped = 3 if version >= 6 else 0  # abstract sockets, and signals
    attributes = struct.pack("QQQ", handled, network, scoped)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    rules = libc.syscall(444, attributes, size, 0)
    if rules < 0:
        return False
    for folder in readable:
        try:
            place = os.open(folder, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        allowed = _READ_FILES | _READ_FOLDERS | _RUN if os.path.isdir(folder) else _READ_FILES | _RUN
        libc.syscall(445, rules, 1, struct.pack("=Qi", allowed, place), 0)  # landlock_add_rule
        os.close(place)
    closed: bool = libc.syscall(446, rules, 0) == 0  # landlock_restrict_self
    os.close(rules)
    return closed


class _Step(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint32))


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.POINTER(_Step)))


def _close_calls(libc: ctypes.CDLL) -> bool:
    """Refuse the system calls of `DENIED`, and most of `BOUNDED`; one of another architecture ends the process."""
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        return False
    column, architecture = machine
    numbers = sorted({pair[column] for pair in DENIED.values()} - {-1})
    load, jump_equal, jump_at_least, end = 0x20, 0x15, 0x35, 0x06
    steps = [(load, 0, 0, 4), (jump_equal, 1, 0, architecture), (end, 0, 0, _KILL), (load, 0, 0, 0)]
    steps += [(jump_at_least, 0, 1, 0x40000000), (end, 0, 0, _KILL)]  # the calls of x32
    for number in numbers:
        steps += [(jump_equal, 0, 1, number), (end, 0, 0, _REFUSE)]
    steps += [(jump_at_least, 0, 1, NEWEST), (end, 0, 0, _UNKNOWN)]
    for pair, allowed in BOUNDED.values():
        steps += [(jump_equal, 0, 2 * len(allowed) + 2, pair[column]), (load, 0, 0, 24)]  # the second argument
        for argument in allowed:
            steps += [(jump_equal, 0, 1, argument), (end, 0, 0, _ALLOW)]
        steps.append((end, 0, 0, _REFUSE))
    steps.append((end, 0, 0, _ALLOW))
    made = (_Step * len(steps))(*[_Step(*step) for step in steps])
    program = _Filter(len(steps), made)
    closed: bool = libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0  # PR_SET_SECCOMP, by a filter
    return closed
