"""Refuse system calls that an answer has no use for (Linux: a seccomp filter).

A worker may start threads but no processes and no programs; it may signal, slow down or look into
no other process; it may open no socket of any kind, and nothing that would outlive it or escape
its limits. A refused call fails with "Operation not permitted", like any other error.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import sys

__all__ = ["ARCHITECTURES", "restrict"]

# Number of each call: x86-64, arm64.
REFUSED = {
    # processes and programs
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "kcmp": (312, 272),
    "tkill": (200, 130),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setattr": (314, 274),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    # the network, and ways around this filter
    "socket": (41, 198),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "fanotify_init": (300, 262),
    # what would outlive the process, or is counted by none of its limits
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    # the system
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "syslog": (103, 116),
    "reboot": (169, 142),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "personality": (135, 92),
}
# Calls whose first argument is a process: itself, or none.
ITSELF = {
    "kill": (62, 129),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "prlimit64": (302, 261),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122),
}
# Calls that are refused for some values of an argument: its place, these values.
NOT_WITH = {
    "fcntl": ((72, 25), 1, (8, 15)),  # F_SETOWN, F_SETOWN_EX: signals to others
    "ioctl": ((16, 29), 1, (0x8901, 0x8902, 0x5412)),  # the same for sockets; typing for others
    "prctl": ((157, 167), 0, (1,)),  # PR_SET_PDEATHSIG: it goes when its parent goes
}
CLONE, CLONE3, SECCOMP = (56, 220), (435, 435), (317, 277)
CLONE_THREAD = 0x00010000
X32 = 0x40000000

ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}  # audit number, column

LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  # where they stand in what the filter sees
KILL, ALLOW, FAIL = 0x80000000, 0x7FFF0000, 0x00050000
PR_SET_NO_NEW_PRIVS, SET_FILTER, ALL_THREADS = 38, 1, 1

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, constant


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("true", ctypes.c_uint8),
        ("false", ctypes.c_uint8),
        ("constant", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.c_void_p))


def restrict() -> bool:
    """Put the filter over every thread of this process; whether it holds."""
    if not sys.platform.startswith("linux") or platform.machine() not in ARCHITECTURES:
        return False
    if ctypes.sizeof(ctypes.c_void_p) != 8 or sys.byteorder != "little":
        return False
    audit, column = ARCHITECTURES[platform.machine()]
    steps = _program(audit, column, os.getpid())
    array = (_Instruction * len(steps))(*(_Instruction(*step) for step in steps))
    program = _Program(len(steps), ctypes.cast(array, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, *map(ctypes.c_ulong, (1, 0, 0, 0)))
    arguments = (ctypes.c_uint(SET_FILTER), ctypes.c_uint(ALL_THREADS), ctypes.byref(program))
    return libc.syscall(ctypes.c_long(SECCOMP[column]), *arguments) == 0


def _program(audit: int, column: int, own: int) -> list[Instruction]:
    """The filter, as the kernel's instructions."""
    refuse = FAIL | errno.EPERM
    steps: list[Instruction] = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 1, 0, audit),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
        (AT_LEAST, 0, 1, X32),
        (RETURN, 0, 0, refuse),
    ]
    for numbers in REFUSED.values():
        steps += _if_called(numbers[column], [(RETURN, 0, 0, refuse)])
    # Without clone3, whose flags a filter cannot see, the C library takes clone.
    steps += _if_called(CLONE3[column], [(RETURN, 0, 0, FAIL | errno.ENOSYS)])
    steps += _if_called(
        CLONE[column],
        [
            (LOAD, 0, 0, ARGUMENTS),
            (ANY_BIT, 1, 0, CLONE_THREAD),
            (RETURN, 0, 0, refuse),
            (RETURN, 0, 0, ALLOW),
        ],
    )
    for numbers in ITSELF.values():
        steps += _if_called(numbers[column], _by_argument(0, (0, own), ALLOW, refuse))
    for both, place, values in NOT_WITH.values():
        steps += _if_called(both[column], _by_argument(place, values, refuse, ALLOW))
    return [*steps, (RETURN, 0, 0, ALLOW)]


def _if_called(number: int | None, then: list[Instruction]) -> list[Instruction]:
    return [] if number is None else [(EQUAL, 0, len(then), number), *then]


def _by_argument(
    place: int, values: tuple[int, ...], if_one: int, otherwise: int
) -> list[Instruction]:
    """Return the one thing if the argument is among the values, else the other."""
    last = len(values)
    tests = [(EQUAL, last - i, 0, value) for i, value in enumerate(values)]
    return [
        (LOAD, 0, 0, ARGUMENTS + 8 * place),
        *tests,
        (RETURN, 0, 0, otherwise),
        (RETURN, 0, 0, if_one),
    ]
