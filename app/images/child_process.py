"""The parent's side of one decoding child: the process with its socket for requests, its pipe for answers and its file.

It runs as `app.images.child`, in a process group of its own, and is told nothing of this process's environment.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.errors import Internal
from app.images.child_answers import ChildDied
from app.images.confinement import Confinement
from app.images.header import ImageLimits

_START_TIMEOUT_SECONDS = 60.0
_END_SECONDS = 0.5
_MAX_ANSWER_BYTES = 64 * 1024
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV")


class ChildProcess:
    """One process with its socket for requests, its pipe for answers and its nameless file.

    `confinement` is known once it is ready.
    """

    confinement: Confinement

    def __init__(self, limits: ImageLimits, folder: Path | None) -> None:
        self.file: Any = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - closed by end()
        root = Path(__file__).resolve().parents[2]
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        # Each thread of a library would reserve address space of its own and so eat the memory limit.
        environment |= {"MALLOC_ARENA_MAX": "2", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._requests, childs_end = socket.socketpair()  # descriptors can be sent through it
        self.process = subprocess.Popen(
            [sys.executable, "-m", "app.images.child"],
            stdin=childs_end.fileno(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=root,
            env=environment,
            pass_fds=(self.file.fileno(),),
            bufsize=0,
            process_group=0,  # whatever it may have started is killed with it
        )
        childs_end.close()
        assert self.process.stdout is not None
        self._poll = select.poll()  # not select(): that fails once a busy server holds 1024 descriptors
        self._poll.register(self.process.stdout, select.POLLIN)
        self._ready = False
        self._setup = {"limits": dataclasses.asdict(limits), "fd": self.file.fileno(), "parent": os.getpid()}

    def await_ready(self) -> None:
        """Wait for the first word of a new child."""
        if self._ready:
            return
        try:
            self.confinement = Confinement(**self.ask(self._setup, _START_TIMEOUT_SECONDS)["confinement"])
        except (ChildDied, OSError, ValueError, KeyError, TypeError, TimeoutError):
            self.end()
            raise Internal(
                "decoder_unavailable", "Photos cannot be decoded now; the service's log says more."
            ) from None
        self._ready = True

    def ask(self, message: dict[str, Any], timeout_seconds: float, files: Sequence[int] = ()) -> dict[str, Any]:
        """Send one line with open files, return the answer; raises TimeoutError, or `ChildDied` at a closed pipe."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + timeout_seconds
        socket.send_fds(self._requests, [json.dumps(message).encode() + b"\n"], list(files))
        line = b""
        while not line.endswith(b"\n"):
            if not self._poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError
            part = os.read(self.process.stdout.fileno(), _MAX_ANSWER_BYTES)
            line += part
            if not part or len(line) > _MAX_ANSWER_BYTES:
                raise ChildDied
        answer = json.loads(line)
        if not isinstance(answer, dict):
            raise ChildDied
        return answer

    def put(self, blocks: Sequence[bytes]) -> None:
        """Write blocks one after another from the start of the file, for the child to read."""
        position = 0
        for block in blocks:
            view = memoryview(block)
            while view:
                written = os.pwrite(self.file.fileno(), view, position)
                position, view = position + written, view[written:]

    def forget(self) -> None:
        """Give the pixels' disk space back."""
        if not self.file.closed:
            self.file.truncate(0)

    def was_killed(self) -> bool:
        """Whether somebody else killed it, as the kernel does when memory runs out; not a signal of its own fault."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_END_SECONDS)  # its pipe is closed a little before
        return self.process.returncode == -signal.SIGKILL

    def kill(self) -> None:
        """Kill the process with its group."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill the process, reap it and close everything; safe to call again."""
        self.kill()
        self.process.wait()
        self._requests.close()
        for stream in (self.process.stdout, self.file):
            if stream is not None:
                stream.close()
