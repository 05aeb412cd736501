"""Two ports in one process: the API and the dashboard, one event loop, one set of signals, one orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from app import logs
from app.api.connection_limits import ConnectionLimits, connections_within, raise_descriptor_limit
from app.api.dashboard import Dashboard
from app.api.http_protocol import CountedWebSocket, TimedProtocol
from app.errors import Conflict, is_exhaustion
from app.exit_codes import EXIT_HUNG
from app.main.application import create_app
from app.main.roles import ProcessRole, check_role
from app.main.service import Service
from app.settings import Settings

log = logging.getLogger(__name__)

STATIC_FOLDER = Path(__file__).resolve().parents[2] / "static"
KEEP_ALIVE_SECONDS = 20
GRACEFUL_SECONDS = 5
BACKLOG_CONNECTIONS = 2048
LARGEST_SOCKET_MESSAGE_BYTES = 4096
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def create_dashboard(app: FastAPI, static_folder: Path = STATIC_FOLDER) -> Dashboard:
    """What the dashboard's port serves: the static pages, and the same API beside them."""
    return Dashboard(app, static_folder, app.state.context.storage.address_origin())


def serve(
    settings: Settings,
    *,
    banner: Callable[[Mapping[str, Any]], None] | None = None,
    after_death: bool = False,
    role: ProcessRole = ProcessRole.ALL,
) -> None:
    """Serve API and dashboard until SIGTERM or SIGINT; a second signal cuts the drain short.

    `banner` is called once with what the local backend says of itself, when it is loaded. `after_death`: the process
    before this one died, and nothing else did; what it had in work burned a try. With `ProcessRole.API` workers
    restore instead of this process.

    Raises:
        RestoreError: the start is not possible: a port is taken, the data folder is in use, the device is not there.
    """
    logs.set_up(settings.log_format, settings.secrets)
    check_role(settings, role)

    def end() -> None:
        restoring = app.state.service.restoring
        os._exit(EXIT_HUNG if restoring is None else restoring.exit_code)

    descriptors = raise_descriptor_limit()  # before the parts are made that count with them
    app = create_app(settings, on_hang=end, after_death=after_death, restores=role is not ProcessRole.API)
    with _listening(settings.host, settings.port) as api, _listening(settings.host, settings.dashboard_port) as pages:
        limits = ConnectionLimits(connections_within(descriptors), proxies=settings.forwarded_allow_ips)
        asyncio.run(_serve(app, api, pages, banner, limits, settings.forwarded_allow_ips))


@contextlib.contextmanager
def _signals_to(on_signal: Callable[[], None]) -> Iterator[None]:
    """Call `on_signal` in the running loop at each signal; afterwards signals change nothing, since the end is near.

    The loop's own handlers go with the loop, and a signal in the last moment would then kill the process.
    """
    loop = asyncio.get_running_loop()

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(on_signal)

    for number in _SIGNALS:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)


class _Server(uvicorn.Server):
    """A server that leaves the signals to `serve`, which has two of them.

    It accepts one connection a turn of the loop. asyncio tries as often as the backlog says, also without a descriptor
    left, and each failure has a timer that tries again: with a long backlog these multiply.
    """

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start with the short backlog that asyncio gets, then let the kernel keep a long one."""
        await super().startup(sockets)
        for port in sockets or ():
            port.listen(BACKLOG_CONNECTIONS)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take none."""
        yield


async def _serve(
    app: FastAPI,
    api: socket.socket,
    pages: socket.socket,
    banner: Callable[[Mapping[str, Any]], None] | None,
    limits: ConnectionLimits,
    proxies: Sequence[str],
) -> None:
    service: Service = app.state.service
    servers = [_server(app, limits, proxies), _server(create_dashboard(app), limits, proxies)]
    asyncio.get_running_loop().set_exception_handler(functools.partial(_on_loop_error, logs.Sparing()))
    stopping = asyncio.Event()

    def on_signal() -> None:
        if stopping.is_set():
            service.force_stop()
            for server in servers:
                server.force_exit = True
        stopping.set()

    with _signals_to(on_signal):
        async with app.router.lifespan_context(app):
            await _run_both(service, servers, (api, pages), banner, stopping)
    if service.load_error is not None:
        raise service.load_error


async def _run_both(
    service: Service,
    servers: Sequence[_Server],
    ports: Sequence[socket.socket],
    banner: Callable[[Mapping[str, Any]], None] | None,
    stopping: asyncio.Event,
) -> None:
    """Serve on both ports until `stopping`, then drain, then close."""
    running = [asyncio.create_task(s.serve(sockets=[port])) for s, port in zip(servers, ports, strict=True)]
    telling = asyncio.create_task(_tell_when_loaded(service, banner, stopping))
    await stopping.wait()
    await service.drain()
    for server in servers:
        server.should_exit = True
    await asyncio.gather(*running)
    await telling


async def _tell_when_loaded(
    service: Service, banner: Callable[[Mapping[str, Any]], None] | None, stopping: asyncio.Event
) -> None:
    """Show the banner once the backend is loaded; when it could not be opened, end the service."""
    while not service.loaded.is_set():
        if stopping.is_set():
            return
        await asyncio.sleep(0.05)
    if service.load_error is not None:
        stopping.set()
    elif banner is not None:
        banner(await asyncio.to_thread(service.context.catalog.description))


def _on_loop_error(sparing: logs.Sparing, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """asyncio says each connection that it had no descriptor for; one line a while is enough."""
    error = context.get("exception")
    if error is not None and is_exhaustion(error):
        sparing.error(log, "a connection had to wait: %s", error)
    else:
        loop.default_exception_handler(context)


def _server(app: Any, limits: ConnectionLimits, proxies: Sequence[str]) -> _Server:
    return _Server(
        uvicorn.Config(
            app,
            http=functools.partial(TimedProtocol, connection_limits=limits),  # type: ignore[arg-type]
            ws=CountedWebSocket,
            backlog=1,
            proxy_headers=bool(proxies),
            forwarded_allow_ips=list(proxies),
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            ws_max_size=LARGEST_SOCKET_MESSAGE_BYTES,
            ws_per_message_deflate=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=GRACEFUL_SECONDS,
        )
    )


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens, bound before anything else starts. Raises `Conflict` `port_taken`."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG_CONNECTIONS)
    except OSError as error:
        reason = error.strerror or "no reason given"
        raise Conflict(
            "port_taken", f"Port {port} on {host} cannot be used ({reason}); stop what uses it, or choose another port."
        ) from None
    listener.setblocking(False)
    return listener
