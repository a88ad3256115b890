"""eisnn-zoo demo: a page on this machine where inhibition is turned up and down."""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
from typing import Annotated

import typer

from ..errors import UsageError
from .output import is_terminal, need, note

LOOPBACK = ("127.0.0.1", "localhost", "::1")
EPILOG = """[bold]Examples[/bold]

  eisnn-zoo demo

  eisnn-zoo demo --model runs/mine --port 8000
"""


def register(app: typer.Typer) -> None:
    app.command("demo", epilog=EPILOG)(demo)


def demo(
    model: Annotated[str | None, typer.Option("--model", "-m", help="Shown first: a name, address, folder or run.")] = None,
    host: Annotated[str, typer.Option("--host", help="0.0.0.0 opens the page to other machines.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", "-p", min=1, max=65535)] = 7860,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")] = True,
) -> None:
    """Open a page in the browser: drop a picture, turn inhibition up and down, watch evidence, rates and spikes."""
    need("demo")
    _check_free(host, port)
    # Gradio asks its own server whether it is there; a proxy that the environment names would not know it.
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = ",".join(filter(None, (known, *LOOPBACK, host)))
    from ..demo import build, launch_options

    page = build(model)
    _, address, _ = page.launch(**launch_options(), server_name=host, server_port=port, quiet=True, prevent_thread_lock=True,
                                inbrowser=browser and is_terminal(sys.stderr))
    print(address, flush=True)
    if host not in LOOPBACK:
        note(f"bound to {host}: whoever can reach this machine can use the page")
    note("Ctrl-C ends it")
    try:
        while True:
            time.sleep(1)  # Ctrl-C does not end an endless wait for a lock on Windows
    except KeyboardInterrupt:
        page.close(verbose=False)
        note("ended")


def _check_free(host: str, port: int) -> None:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            if sys.platform != "win32":  # where it would take a port away from whoever listens
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror as error:
        raise UsageError(f"--host {host}: there is no such address") from error
    except PermissionError as error:
        raise UsageError(f"--port {port}: only the administrator may use it; choose one above 1023") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UsageError(f"--port {port} is taken, perhaps by another demo: choose another with --port") from error
        raise UsageError(f"--host {host}: this machine has no such address ({error.strerror})") from error
