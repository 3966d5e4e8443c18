"""The command line: `transfer-tutorial run` executes the lessons headless and leaves a folder with all that came out;
`transfer-tutorial sweep` executes one of them over a grid of parameters.

Options in, lines out. What takes time to import is imported inside the commands, so that `--help` answers at once.
"""

import os
import shlex
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

import click

from helpers import __version__

if TYPE_CHECKING:
    from helpers.runner.sweep import Sweep

FOLDER = click.Path(path_type=Path)


class _Lossy:
    """Standard output or error, whose terminal or reader may go away: then what is said is lost, and no work."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:  # what it still holds goes nowhere, now and when Python ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


class BadInput(click.ClickException):
    """Something given cannot be; said in one line, before anything is run or written."""

    exit_code = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="transfer-tutorial")
def main() -> None:
    """Transfer learning by running the experiment properly: seven notebooks, run as lessons or headless."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed before this process began; a file must not get its number
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(nowhere, True)
            setattr(sys, name, os.fdopen(nowhere, mode))
    sys.stdout, sys.stderr = cast(TextIO, _Lossy(sys.stdout)), cast(TextIO, _Lossy(sys.stderr))
    if os.path.expanduser("~") == "~":  # a user without a home, as in a container under another number
        os.environ["HOME"] = tempfile.gettempdir()
    try:
        os.getcwd()
    except OSError as error:
        raise BadInput("the folder that you are in is gone; cd to another") from error
    for name in ("MNIST_NPZ", "TRANSFER_TUTORIAL_DATA"):
        if os.environ.get(name):
            from helpers.runner.notebooks import absolute

            os.environ[name] = absolute(os.environ[name])


@main.command()
@click.option("--dataset", metavar="NAME-OR-PATH", help="Data, or a folder.  [default: mnist, or mnist_5k without]")
@click.option("--only", metavar="LESSONS", help="Run these lessons only, such as 03,05.")
@click.option("-p", "given", type=(str, str), multiple=True, metavar="NAME VALUE", help="Set a parameter; YAML.")
@click.option("--out", type=FOLDER, metavar="DIR", help="New folder.  [default: runs/<dataset>-<date>-<time>]")
@click.option("--resume", type=FOLDER, metavar="DIR", help="Go on with an interrupted or failed run.")
def run(
    dataset: str | None, only: str | None, given: tuple[tuple[str, str], ...], out: Path | None, resume: Path | None
) -> None:
    """Run the lessons headless, with their parameters as given, into a new folder.

    It holds the executed notebooks, an index.html to look at, results.csv with one row per training, and run.json.
    """
    from helpers.runner.notebooks import signals_as_exit

    with signals_as_exit() as received, ExitStack() as held:
        from helpers import artefacts
        from helpers.runner import batch, report
        from helpers.runner.worker import one_line

        with _bad_input_in_one_line():
            if resume is None:
                lessons = None if only is None else [number.strip() for number in only.split(",")]
                started = batch.new(dataset, given, lessons, out)
                held.enter_context(artefacts.lock("--out", started.folder))
            elif dataset or only or given or out:
                raise ValueError("--resume: takes everything from the run that it goes on with; give no other option")
            else:
                held.enter_context(artefacts.lock("--resume", resume))
                started = batch.resume(resume.absolute())
        for note in started.notes:
            click.echo(note)
        go_on = f"\nTo go on: transfer-tutorial run --resume {shlex.quote(str(started.folder))}"
        try:
            with batch.recorded(started):
                failed = batch.execute(started, received)
                results = batch.write_results(started)
                index = report.write_run(started.folder, started.record, results)
            if len(results):
                click.echo("\nMean test accuracy in percent, by labels per class:\n")
                click.echo(report.result_table(results).to_string(index=False))
            click.echo(f"\nOpen {index}")
        except SystemExit:
            click.echo(f"\nInterrupted.{go_on}", err=True)
            raise
        except Exception as error:  # a full disk, a page that cannot be written
            raise click.ClickException(f"{one_line(error)}{go_on}") from error
    if failed:
        raise click.ClickException(failed + go_on)


@main.command()
@click.argument("notebook", metavar="LESSON")
@click.option(
    "--grid", "swept", multiple=True, metavar="NAME=V1,V2,...", help="Sweep over values of a parameter; YAML."
)
@click.option("-p", "given", type=(str, str), multiple=True, metavar="NAME VALUE", help="Set it in all runs; YAML.")
@click.option("--out", type=FOLDER, required=True, metavar="DIR", help="New folder, or this sweep's to go on with it.")
@click.option("--scheduler", metavar="ADDRESS", help="Run on this Dask cluster.  [default: on this machine]")
@click.option(
    "--workers", type=click.IntRange(1), metavar="N", help="Runs at a time here.  [default: as cores and memory allow]"
)
@click.option("--retries", type=click.IntRange(0), default=0, metavar="K", help="Repeat a run that fails, K times.")
@click.option("--timeout", type=click.IntRange(1), metavar="SECONDS", help="Fail a run if a cell takes longer.")
@click.option("--dry-run", is_flag=True, help="Print the table of runs and run nothing.")
@click.option("--yes", is_flag=True, help="Allow more than 10,000 runs.")
def sweep(
    notebook: str,
    swept: tuple[str, ...],
    given: tuple[tuple[str, str], ...],
    out: Path,
    scheduler: str | None,
    workers: int | None,
    retries: int,
    timeout: int | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Run one lesson, or a notebook of your own by its path, once for each combination of values in a grid.

    DIR gets the executed notebooks, results.csv with the parameters as columns, and sweep.html to look at. The same
    command again runs what is missing or failed.
    """
    from helpers.runner import notebooks

    with notebooks.signals_as_exit(kill_children=False):  # Dask stops its own
        from helpers import artefacts
        from helpers.runner import parameters, sweep

        with _bad_input_in_one_line():
            sweep.check_options(scheduler, workers)
            values, found = parameters.read_given(given), notebooks.find(notebook)
            planned = sweep.plan(
                found, parameters.read_grid(swept), values, out.absolute(), yes, on_cluster=scheduler is not None
            )
            artefacts.check_folder("--out", str(out), planned.out)
        before = sweep.records(planned)
        missing = len(sweep.missing(planned, before))
        click.echo(f"{planned.notebook.name}: {len(planned.runs)} runs, {len(planned.runs) - missing} of them done")
        if missing:
            click.echo(sweep.estimate(before, missing))
        if dry_run:
            click.echo(sweep.table(planned, before).to_string())
            return
        if missing:
            with _early_end_reported(planned):
                _run_sweep(planned, scheduler, workers, retries, timeout)
        if failed := _report_sweep(planned):
            first, count = failed[0], len(failed)
            raise click.ClickException(f"{count} of {len(planned.runs)} runs failed, {first['name']}: {first['error']}")


@contextmanager
def _bad_input_in_one_line() -> Iterator[None]:
    """Turn what the checks before a run refuse into one line."""
    from helpers.datasets import DownloadError

    try:
        yield
    except (ValueError, DownloadError, OSError) as error:
        raise BadInput(str(error)) from error


@contextmanager
def _early_end_reported(planned: "Sweep") -> Iterator[None]:
    """Report what a sweep has got if it cannot go on or is stopped, and say so in one line."""
    try:
        yield
    except ValueError as error:
        raise BadInput(" ".join(str(error).split())) from error
    except OSError as error:  # the scheduler is gone, the disk is full
        with suppress(OSError):
            _report_sweep(planned)
        raise click.ClickException(f"{error}; the same command goes on") from error
    except SystemExit:
        _report_sweep(planned)
        click.echo("\nInterrupted. The same command goes on", err=True)
        raise


def _run_sweep(planned: "Sweep", scheduler: str | None, workers: int | None, retries: int, timeout: int | None) -> None:
    """Execute the runs that are missing, with a progress bar."""
    from tqdm import tqdm

    from helpers import artefacts
    from helpers.runner import sweep

    workers, settings = sweep.settings_for(scheduler, workers)
    with sweep.connect(scheduler, workers) as client:
        planned.out.mkdir(parents=True, exist_ok=True)
        with artefacts.lock("--out", planned.out):
            missing, failed = sweep.missing(planned, sweep.records(planned)), 0  # known for sure only now
            places = sum(client.nthreads().values())
            click.echo(f"{len(missing)} to run, {places} at a time; Dask's dashboard: {client.dashboard_link}")
            with tqdm(total=len(missing), unit="run") as bar:
                for record in sweep.execute(client, planned, missing, retries, {**settings, "timeout": timeout}):
                    failed += record["status"] == "failed"
                    bar.set_postfix(finished=bar.n + 1 - failed, failed=failed, refresh=False)
                    bar.update()


def _report_sweep(planned: "Sweep") -> list[dict[str, Any]]:
    """Write `results.csv` and the page and print where to look; return the records of this grid's failed runs."""
    from helpers.runner import report, sweep

    if not (planned.out / "sweep.json").is_file():
        return []  # stopped before the first run began
    records = sweep.records(planned)
    click.echo(f"\nOpen {report.write_sweep(planned, records, sweep.write_results(planned, records))}")
    return [record for record in records if record["status"] == "failed" and record["name"] in planned.runs]
