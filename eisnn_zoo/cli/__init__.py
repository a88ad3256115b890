"""The command line. Each command lives in its own module; heavy imports wait until a command runs."""

from __future__ import annotations

import codecs
import io
import os
import signal
import sys

import typer
import typer.core

from ..errors import UsageError, ZooError
from . import analyze, benchmark, demo, evaluate, export, hub, listing, predict, training
from .output import note


class Commands(typer.core.TyperGroup):
    """The commands. Some take their model by an option, beside what they read, and some by itself: who takes one for the other is told."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except Exception as error:  # newer versions of typer have their own copy of click's classes
            if getattr(error, "option_name", "") in ("--model", "-m"):
                command = error.ctx.command
                if any(p.param_type_name == "argument" and "MODEL" in (p.metavar or p.name).upper() for p in command.params):
                    raise UsageError(f"no --model here, but the model alone: {error.ctx.command_path} MODEL") from error
            raise


app = typer.Typer(
    name="eisnn-zoo",
    cls=Commands,
    help="Excitatory-inhibitory spiking networks: predict, evaluate, train, export.\n\n"
         "Start with:  [bold]eisnn-zoo predict photo.png[/bold]",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (predict, listing, training, evaluate, export, benchmark, hub, analyze, demo):
    module.register(app)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and exit.", is_eager=True)) -> None:
    if version:
        from .. import __version__

        print(__version__)
        raise typer.Exit()


def main() -> None:
    """Entry point: every failure is one sentence on stderr, exit code 2 for a wrong request and 1 for a failure."""
    codecs.register_error("any_name", _any_name)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # closed by who started this
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "any_name"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that temporary files go
    try:
        os.getcwd()  # what torch loads later would end the process without a word where the folder is gone
        app()
    except ZooError as error:
        _fail(str(error), error.exit_code)
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        _fail(f"{name}{error.strerror or error}" if _has_folder() else "the folder in which this was started is gone: go to another", 1)
    except Exception as error:
        if os.environ.get("EISNN_ZOO_DEBUG"):
            raise
        if str(error).startswith("Symlink loop"):  # Path.resolve's, before Python 3.13
            _fail(f"{error}: give a path that leads somewhere", 1)
        if _is_memory(error):
            _fail("there is not enough memory for this: lower --batch-size or --time-steps, where the command has them", 1)
        words = " ".join(str(error).split())
        if type(error).__module__.startswith(("torch._inductor", "torch._dynamo")):
            _fail(f"torch.compile failed here ({words[:500]}): go without it (in training: --no-compile), or give "
                  "TORCHINDUCTOR_CACHE_DIR a folder with room", 1)
        _fail(f"this should not happen ({type(error).__name__}: {words}); run again with EISNN_ZOO_DEBUG=1 for the details "
              "and report them", 1)


def _has_folder() -> bool:
    try:
        return bool(os.getcwd())
    except FileNotFoundError:
        return False


def _is_memory(error: Exception) -> bool:
    """Whether numpy, torch on a CPU, or torch on a GPU got no memory."""
    return (isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
            or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error)))


def _any_name(error: UnicodeError) -> tuple[str | bytes, int]:
    """A file name on its way out: bytes that are no UTF-8 as they were, letters that the stream lacks as their numbers."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)


def _fail(sentence: str, code: int) -> None:
    note(f"Error: {sentence}")
    sys.exit(code)
