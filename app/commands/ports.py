"""Whether a port is free, for who serves and for the doctor.

The supervisor loads it, so it needs no part of the service.
"""

from __future__ import annotations

import socket


def port_error(host: str, port: int) -> str | None:
    """None when a server could listen on `host` and `port` now, else the system's word for why not."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(found[0], socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(found[4])
    except OSError as error:
        return error.strerror or "unknown reason"
    return None
