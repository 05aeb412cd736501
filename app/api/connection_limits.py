"""How many connections are held, in all and from each address, and how many archives, so that descriptors are left.

When there is no place the connection that has been idle longest makes room; only if all are busy is the newcomer
refused. It knows neither HTTP nor requests: protocols say when they are idle.
"""

from __future__ import annotations

import ipaddress
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Protocol

MOST_CONNECTIONS = 1024
MOST_OF_ONE_ADDRESS = 128
FEWEST_CONNECTIONS = 16
DESCRIPTORS_KEPT_FOR_WORK = 192
WANTED_DESCRIPTORS = 16_384
MOST_ARCHIVES = 16
FILES_OF_ARCHIVE = 200  # that one ZIP archive may hold open


class Evictable(Protocol):
    """A connection that can be ended while it is idle."""

    def has_unread_bytes(self) -> bool:
        """Whether the client has sent what nobody has read yet: a request may be under way that would be lost."""
        ...

    def evict(self) -> None:
        """Close it at once."""
        ...


class ConnectionLimits:
    """Counts the connections of all ports. Use it from the event loop.

    Addresses in `proxies` (of reverse proxies, behind which many clients stand) have no limit of their own.
    """

    def __init__(
        self, most: int = MOST_CONNECTIONS, most_of_one: int = MOST_OF_ONE_ADDRESS, proxies: Iterable[str] = ()
    ) -> None:
        self._most, self._most_of_one = most, most_of_one
        self._trusts_all = "*" in proxies
        self._proxies = [ipaddress.ip_network(proxy, strict=False) for proxy in proxies if proxy != "*"]
        self._addresses: dict[Evictable, str] = {}
        self._held: Counter[str] = Counter()
        self._idle: dict[Evictable, None] = {}  # in the order in which they became idle

    @property
    def total(self) -> int:
        """How many are held now."""
        return len(self._addresses)

    def acquire(self, connection: Evictable, address: str) -> bool:
        """Take a place for a connection, which begins idle; False when there is none and no idle one to end."""
        if self._held[address] >= self._most_of_one and not self._is_proxy(address) and not self._evict(address):
            return False
        if self.total >= self._most and not self._evict(None):
            return False
        self._addresses[connection] = address
        self._held[address] += 1
        self._idle[connection] = None
        return True

    def release(self, connection: Evictable) -> None:
        """The connection is gone. Harmless for one that has no place."""
        self._idle.pop(connection, None)
        address = self._addresses.pop(connection, None)
        if address is not None:
            self._held[address] -= 1
            if not self._held[address]:
                del self._held[address]

    def mark_busy(self, connection: Evictable) -> None:
        """A request is under way: it is not ended for others."""
        self._idle.pop(connection, None)

    def mark_idle(self, connection: Evictable) -> None:
        """Nothing is under way any more."""
        if connection in self._addresses:
            self._idle.pop(connection, None)
            self._idle[connection] = None

    def _evict(self, address: str | None) -> bool:
        """End the connection that has been idle longest, of one address or of all; False when none is idle.

        One with unread bytes goes only where all have some: its request would be lost without an answer.
        """
        idle = [one for one in self._idle if address is None or self._addresses[one] == address]
        if not idle:
            return False
        oldest = next((one for one in idle if not one.has_unread_bytes()), idle[0])
        self.release(oldest)
        oldest.evict()
        return True

    def _is_proxy(self, address: str) -> bool:
        if self._trusts_all:
            return True
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._proxies)


def unread_bytes(descriptor: int) -> int:
    """How many bytes have come on a socket that nobody has read; 0 where it is closed or nothing can tell."""
    if sys.platform == "win32":
        return 0
    import fcntl
    import termios

    count = bytearray(4)
    try:
        fcntl.ioctl(descriptor, termios.FIONREAD, count)
    except (OSError, ValueError):
        return 0
    return int.from_bytes(count, sys.byteorder)


def descriptor_limit() -> int:
    """How many descriptors this process may have as things are, within reason."""
    if sys.platform == "win32":
        return WANTED_DESCRIPTORS
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return WANTED_DESCRIPTORS if soft == resource.RLIM_INFINITY else min(soft, WANTED_DESCRIPTORS)


def raise_descriptor_limit() -> int:
    """Allow this process as many descriptors as it may ask for, within reason; gives the limit that holds."""
    if sys.platform == "win32":
        return WANTED_DESCRIPTORS
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(WANTED_DESCRIPTORS, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return WANTED_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def connections_within(descriptors: int) -> int:
    """How many connections leave enough descriptors for work and archives; one that sends a file holds a second one."""
    kept = DESCRIPTORS_KEPT_FOR_WORK + archives_within(descriptors) * FILES_OF_ARCHIVE
    return max(FEWEST_CONNECTIONS, min(MOST_CONNECTIONS, (descriptors - kept) // 2))


def archives_within(descriptors: int) -> int:
    """How many archives at once hold a quarter of the descriptors at most; one is always allowed."""
    return max(1, min(MOST_ARCHIVES, descriptors // 4 // FILES_OF_ARCHIVE))
