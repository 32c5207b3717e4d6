"""The command line's entry: the commands, and every error as one line and an exit code.

2 for wrong usage, 1 for a failure, 130 for an interrupt.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from spectrum.errors import SpectrumError, UsageError, out_of_memory
from spectrum_cli import models, signals
from spectrum_cli.batch import batch
from spectrum_cli.compare import compare
from spectrum_cli.config import defaults
from spectrum_cli.doctor import doctor
from spectrum_cli.flags import learn, with_flags
from spectrum_cli.gen import gen
from spectrum_cli.help import Command, Group
from spectrum_cli.inspect import inspect
from spectrum_cli.output import emit, emit_json, error, reason
from spectrum_cli.plan import plan
from spectrum_cli.rerun import rerun
from spectrum_cli.show import show
from spectrum_cli.tune import tune

_STOPPED = {129: "hung up", 130: "interrupted", 143: "terminated"}

app = typer.Typer(
    cls=Group,
    help="Images and videos from diffusion transformers, several times faster: most solver steps"
    " are forecast, not computed.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(cls=Command)(gen)
app.command(cls=Command)(batch)
app.command(cls=Command)(compare)
app.command(cls=Command)(tune)
app.command(cls=Command)(plan)
app.command(cls=Command)(inspect)
app.add_typer(models.app, name="models")
app.command(cls=Command)(show)
app.command(cls=Command)(doctor)
app.command(cls=Command)(rerun)


def _version(asked: bool) -> None:
    if asked:
        from spectrum import __version__

        emit(f"spectrum {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="And exit.")
    ] = False,
) -> None:
    del version
    commands: dict[str | None, Any] = getattr(context.command, "commands", {})
    learn([*commands.values(), commands[context.invoked_subcommand]])  # the one at work wins
    name = context.invoked_subcommand or ""
    if name not in ("models", "show", "doctor", "rerun"):
        usual = defaults()
        if name == "compare":
            usual.pop("method", None)
        context.default_map = {name: usual}


def main() -> int:
    """The exit code of the command of `sys.argv`, whatever the streams are."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the shell (>&-): what is made counts, not what is said
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ● gets ?, not an error
    return run()


def run() -> int:
    """Run the command of `sys.argv`; the exit code."""
    try:
        code = app(standalone_mode=False, prog_name="spectrum")
    except UsageError as problem:
        return _fail(str(problem), 2)
    except SpectrumError as problem:
        return _fail(str(problem), 1)
    except TyperException as problem:
        if not problem.format_message():  # nothing was asked, and the help has been shown
            return 0
        return _fail(_usage(problem), 2)
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as problem:
        if told := out_of_memory(problem) or _of_a_file(problem):
            return _fail(told, 1)
        if os.environ.get("SPECTRUM_DEBUG"):
            raise
        return _fail(f"{reason(problem)}; SPECTRUM_DEBUG=1 shows where it happened", 1)
    code = signals.taken() or code  # typer makes 130 of all that stops it
    if code in _STOPPED:
        return _fail(f"{_STOPPED[code]}; no unfinished file is left", code)
    return int(code or 0)


def _of_a_file(problem: Exception) -> str | None:
    """A full disk, a name that is too long, a folder that may not be written to."""
    if isinstance(problem, OSError) and problem.strerror:
        return f"{problem.filename or 'a file'}: {problem.strerror}"
    return None


def _fail(text: str, code: int) -> int:
    """Say what is wrong: a line for people, and where JSON was asked for an object."""
    error(text)
    if "--json" in sys.argv:
        emit_json({"error": " ".join(with_flags(text).split()), "exit_code": code})
    return code


def _usage(problem: TyperException) -> str:
    text = problem.format_message().rstrip(".")
    context = getattr(problem, "ctx", None)
    command = context.command_path if context else "spectrum"
    if "unexpected extra argument" in text and command.endswith((" gen", " compare")):
        text += f'; a prompt of several words goes in quotes: {command} "a red circle"'
    return f"{text}; `{command} --help` lists all options"
