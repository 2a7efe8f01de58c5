"""Serves a page on an address of this machine, until the process is stopped."""

import contextlib
import errno
import ipaddress
import os
import socket
import tempfile
import threading
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from meljax.util.errors import UserError

FIRST_PORT = 7860
TRIED_PORTS = 100


@contextlib.contextmanager
def listen(host: str, port: int | None) -> Iterator[socket.socket]:
    """Yields a socket that listens on `host` and `port`.

    If `port` is `None`, it is the first free one from `FIRST_PORT` on.

    Raises:
      UserError: the address cannot be used.
    """
    ports = range(FIRST_PORT, FIRST_PORT + TRIED_PORTS) if port is None else [port]
    try:
        listener = _first_free(host, ports)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        where = f"port {port}" if port is not None else f"a port from {ports[0]} to {ports[-1]}"
        raise UserError(f"cannot listen on {where} of {host!r}: {reason}") from None
    with contextlib.closing(listener):
        yield listener


def _first_free(host: str, ports: Sequence[int]) -> socket.socket:
    """Returns a socket that listens on the first free port; raises `OSError`."""
    for port in ports:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            if os.name == "posix":  # on Windows, the option lets two programs share a port
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
            listener.listen()
            return listener
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE or port == ports[-1]:
                raise
    raise AssertionError("there are ports")


def address(listener: socket.socket) -> str:
    """Returns the URL of a listening socket for a browser on this machine."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_local(listener: socket.socket) -> bool:
    """Returns whether only this machine can connect to a socket."""
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


@contextlib.contextmanager
def uploads() -> Iterator[Path]:
    """Yields a folder in which Gradio stores uploads; it is removed after the block."""
    before = os.environ.get("GRADIO_TEMP_DIR")
    with tempfile.TemporaryDirectory(prefix="meljax-app-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # the only way to tell Gradio
        try:
            yield Path(folder)
        finally:
            del os.environ["GRADIO_TEMP_DIR"]
            if before is not None:
                os.environ["GRADIO_TEMP_DIR"] = before


def serve(app: Callable, listener: socket.socket, opened: str | None = None) -> None:
    """Serves an ASGI application until a signal arrives; the signal is raised again at the end.

    `opened`: a URL to open in a browser, if any.
    """
    import uvicorn  # from the extra

    # Gradio prints the errors of the page itself. The timeout is for pages that are still open.
    quiet = {"log_level": "critical", "access_log": False}
    config = uvicorn.Config(app, ws="none", lifespan="on", timeout_graceful_shutdown=1, **quiet)
    if opened:
        threading.Thread(target=webbrowser.open, args=[opened], daemon=True).start()
    uvicorn.Server(config).run(sockets=[listener])
