"""How a command fails: with one line that says why and, if it has begun, the command that resumes it."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click


class BadInput(click.ClickException):
    """Invalid input, reported in one line before anything runs or is written."""

    exit_code = 2


@contextmanager
def bad_input_in_one_line(*kinds: type[Exception]) -> Iterator[None]:
    """Report these kinds of errors as bad input; by default, all errors from the checks before a run."""
    if not kinds:
        from helpers.datasets import DownloadError

        kinds = (ValueError, DownloadError, OSError)
    try:
        yield
    except kinds as error:
        raise BadInput(" ".join(map(str.strip, str(error).splitlines()))) from error


@contextmanager
def resumable(command: str, folder: Path, **how: Any) -> Iterator[None]:
    """If a command fails or stops, print a command that resumes it with the same folder and options, ready to paste."""

    def hint() -> str:
        if not (folder / f"{command}.json").is_file():
            return "\nNothing has run yet; repeat the same command"
        options = [word for name, value in how.items() if value for word in (f"--{name}", str(value))]
        return "\nTo resume: " + shlex.join(["transfer-tutorial", command, "--resume", str(folder), *options])

    try:
        yield
    except SystemExit:
        click.echo(f"\nInterrupted.{hint()}", err=True)
        raise
    except BadInput:
        raise
    except Exception as error:  # a full disk, a page that cannot be written, a lost scheduler
        from helpers.runner.worker import one_line

        message = error.message if isinstance(error, click.ClickException) else one_line(error)
        raise click.ClickException(message + hint()) from error
