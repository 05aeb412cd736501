"""What the decoder's child may not do: use more than its share, reach a network, run a program, touch other processes.

A photo that takes the child over through a fault of a codec is then still alone in it. The filter of system calls is
written here, since the one package for it (pyseccomp, unchanged since 2021) wraps a C library that must be installed.
"""

from __future__ import annotations

import ctypes
import dataclasses
import math
import platform
import resource
import signal
import socket
import sys

from app.images.address_space import mapped_bytes
from app.images.header import ImageLimits

MEBIBYTE = 1024 * 1024
DECODE_THREADS = 2
_FILE_ROOM_BYTES = 64 * MEBIBYTE
_MAX_BYTES_PER_PIXEL = 8

# Words of linux/prctl.h, seccomp.h, filter.h and audit.h.
_SET_PARENT_DEATH_SIGNAL, _SET_NO_NEW_PRIVILEGES = 1, 38
_SET_FILTER, _ALL_THREADS = 1, 1
_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_NOT_LESS, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER_AT, _MACHINE_AT = 0, 4
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000 | 13  # 13: EACCES
_FOREIGN_NUMBERS = 0x40000000  # on x86-64 the calls of the x32 kind begin here


@dataclasses.dataclass(frozen=True)
class Confinement:
    """What holds in the child, as the child itself found it. `reason` says why its system calls are not filtered."""

    network_closed: bool
    memory_limited: bool
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class _Machine:
    """A kind of processor: its word in an audit record, the number of seccomp, and those of the refused calls."""

    word: int
    seccomp: int
    refused: tuple[int, ...]


# socket, io_uring_setup (it opens sockets too), execve, execveat, ptrace, process_vm_readv, process_vm_writev,
# pidfd_getfd (it takes descriptors of others), kill, tkill.
_MACHINES = {
    "x86_64": _Machine(0xC000003E, 317, (41, 425, 59, 322, 101, 310, 311, 438, 62, 200)),
    "aarch64": _Machine(0xC00000B7, 277, (198, 425, 221, 281, 117, 270, 271, 438, 129, 130)),
}


class _Step(ctypes.Structure):
    """One step of a filter: what to do, how far to jump if so or if not, and a number."""

    _fields_ = (("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("steps", ctypes.POINTER(_Step)))


def confine(limits: ImageLimits) -> Confinement:
    """Limit this process for good, all its threads; says what holds. A system that lacks a part goes without it."""
    _limit_files(limits)
    memory_limited = set_memory(limits.decode_memory_mb * MEBIBYTE)
    reason = _filter_calls()
    return Confinement(not _opens_sockets(), memory_limited, reason)


def die_with_parent() -> None:
    """Have the kernel (Linux) kill this process when the thread that made it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def _limit_files(limits: ImageLimits) -> None:
    """Files: what the largest picture takes. Core dumps: none."""
    size = int(limits.max_input_megapixels * 1e6) * _MAX_BYTES_PER_PIXEL + _FILE_ROOM_BYTES
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def set_memory(more_bytes: int) -> bool:
    """Limit the address space to what is mapped now and so much more; False where no system says (not Linux)."""
    mapped = mapped_bytes()
    if mapped is None:
        return False
    resource.setrlimit(resource.RLIMIT_AS, (mapped + more_bytes, resource.getrlimit(resource.RLIMIT_AS)[1]))
    return True


def limit_cpu(seconds: float) -> None:
    """Processor time for one request: what its wall time allows to all threads; the parent's clock ends it before."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    allowed = math.ceil(used.ru_utime + used.ru_stime + DECODE_THREADS * seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (allowed, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _filter_calls() -> str:
    """Refuse the calls of `_MACHINES` in every thread, for good; says why not where that cannot be."""
    machine = _MACHINES.get(platform.machine())
    if sys.platform != "linux" or machine is None or sys.maxsize < 1 << 32:
        return f"there is no filter of system calls for {sys.platform} on {platform.machine()}"
    steps = _steps(machine)
    program = _Program(len(steps), (_Step * len(steps))(*(_Step(*step) for step in steps)))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    if libc.syscall(machine.seccomp, _SET_FILTER, _ALL_THREADS, ctypes.byref(program)) != 0:
        return f"the system does not filter calls (error {ctypes.get_errno()} of seccomp)"
    return ""


def _steps(machine: _Machine) -> list[tuple[int, int, int, int]]:
    """The filter: a call of another kind of processor ends the process, a listed one is refused, others are allowed."""
    listed = [_FOREIGN_NUMBERS, *machine.refused]
    steps = [
        (_LOAD, 0, 0, _MACHINE_AT),
        (_JUMP_IF_EQUAL, 1, 0, machine.word),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    for place, number in enumerate(listed):
        code = _JUMP_IF_NOT_LESS if number == _FOREIGN_NUMBERS else _JUMP_IF_EQUAL
        steps.append((code, len(listed) - place, 0, number))
    return [*steps, (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE)]


def _opens_sockets() -> bool:
    """Whether this process can still open a socket: tried, not concluded."""
    try:
        socket.socket().close()
    except PermissionError:
        return False
    return True
