"""What a process that restores is called: its host, the supervisor that starts it again, and its process id.

The supervisor's mark is the same for all of its children and for nobody else's, so that a child that takes the place of
a dead one finds what that one had in work, also where containers share host names and process ids.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
import socket

SUPERVISOR_VARIABLE = "RESTORE_SUPERVISOR"  # in the environment of each child


@dataclasses.dataclass(frozen=True)
class ProcessName:
    """Whose child a process is, and which one."""

    host: str
    supervisor: str
    pid: int

    @property
    def of_its_supervisor(self) -> str:
        """How the names of all children of its supervisor begin; empty without one."""
        return f"{self.host}:{self.supervisor}:" if self.supervisor else ""

    def __str__(self) -> str:
        return f"{self.of_its_supervisor or f'{self.host}:'}{self.pid}"


def own_process_name() -> ProcessName:
    """The name of this process."""
    return ProcessName(socket.gethostname(), os.environ.get(SUPERVISOR_VARIABLE, ""), os.getpid())


def new_supervisor_mark() -> str:
    """A mark that no other supervisor has."""
    return secrets.token_hex(4)
