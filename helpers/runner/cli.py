"""The command line: it reads options and prints lines, and leaves the work to other modules.

Slow imports are inside the commands, so that `--help` responds at once.
"""

import os
import shlex
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from helpers import __version__
from helpers.runner import process
from helpers.runner.errors import bad_input_in_one_line, resumable

if TYPE_CHECKING:
    from helpers.runner.sweep import Sweep

FOLDER: Any = click.types.FuncParamType(lambda path: Path(os.path.expanduser(path)))  # for ~ in --out=~/x
HOW = ("scheduler", "workers", "store", "retries", "timeout")  # how to run a sweep; the other options say what to run
PARAMETERS = """\b
NAME is a variable in a lesson's first code cell, which is tagged `parameters`.
VALUE is YAML: 3, adam, 1e-3, [0, 1, 2]. To list a lesson's parameters and what they mean:
    transfer-tutorial lessons DIR
    papermill --help-notebook DIR/05_transfer_comparison.ipynb"""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="transfer-tutorial")
def main() -> None:
    """Transfer learning, done properly: eight notebooks, to work through as lessons or to run headless."""
    with bad_input_in_one_line(ValueError):
        process.prepare()


@main.command()
@click.argument("folder", type=FOLDER, metavar="DIR")
def lessons(folder: Path) -> None:
    """Write the lessons into a folder, as notebooks to read, run and change in JupyterLab.

    Existing notebooks are never overwritten.

    \b
    Example:
        transfer-tutorial lessons course
    """
    from helpers.runner import copies

    with bad_input_in_one_line():
        paths = copies.write_lessons(folder)
    click.echo(f"{len(paths)} lessons in {folder}\nTo open the first: {shlex.join(['jupyter', 'lab', str(paths[0])])}")


# Options that commands share
DATASET = click.option("--dataset", metavar="NAME-OR-PATH", help="Name of a dataset, or path of a file or folder.")
ONLY = click.option(
    "--only", type=lambda text: text.split(","), metavar="LESSONS", help="Use only these lessons, such as 03,05."
)
FILE = click.option("-f", "file", type=FOLDER, metavar="FILE", help="Parameters in YAML; -p overrides them.")
GIVEN = click.option("-p", "given", type=(str, str), multiple=True, metavar="NAME VALUE", help="Set a parameter.")
RESUME = click.option("--resume", type=FOLDER, metavar="DIR", help="Run anything missing or failed in DIR.")
TIMEOUT = click.option("--timeout", type=click.IntRange(1), metavar="SECONDS", help="Fail if a cell takes longer.")
DRY_RUN = click.option("--dry-run", is_flag=True, help="Check everything, print what would run, and run nothing.")


@main.command("class", epilog=PARAMETERS)
@click.argument("folder", type=FOLDER, metavar="DIR")
@DATASET
@ONLY
@FILE
@GIVEN
def class_(folder: Path, only: list[str] | None, dataset: str | None, **asked: Any) -> None:
    """Write the lessons as nbgrader assignments, with the given parameters, into a course folder.

    Without --dataset, the data is mnist_5k, which works offline. Existing assignments are never overwritten.

    \b
    Example:
        transfer-tutorial class course --only 01,02 -p target_classes "[0, 1, 2]"
    """
    from helpers.runner import assignments, notebooks, parameters

    with bad_input_in_one_line():
        values = {"dataset": "mnist_5k", **parameters.read_given(parameters.joined(**asked), dataset)}
        chosen = notebooks.lessons(only)
        parameters.check(chosen, values)
        paths = assignments.write(folder, chosen, values)
    hint = f"To make a handout, run this in {folder}: nbgrader generate_assignment {paths[0].stem}"
    click.echo(f"{len(paths)} assignments in {folder / 'source'}\n{hint}")


@main.command()
@click.argument("folder", type=FOLDER, metavar="DIR")
@click.argument("lesson")
def misconceptions(folder: Path, lesson: str) -> None:
    """Count the checks' replies to the answers for LESSON in the course folder DIR; run nbgrader autograde first.

    Also name the learners whose notebooks were not graded, and save the figure misconceptions-LESSON.png in DIR.

    \b
    Example:
        transfer-tutorial misconceptions course 02
    """
    from helpers.runner import assignments, notebooks

    with bad_input_in_one_line():
        name = notebooks.lesson(lesson).name
        counted, picture = assignments.write_misconceptions(folder, name)
    graded, others = counted.groupby("exercise")["learners"].sum().max(), assignments.not_graded(folder, name)
    said = [f"{learner}: {why}" for learner, why in others.items()]
    click.echo("\n".join([f"{graded} notebooks of {name}", counted.to_string(index=False), *said, f"Open {picture}"]))


@main.command(epilog=PARAMETERS)
@DATASET
@ONLY
@FILE
@GIVEN
@click.option("--out", type=FOLDER, metavar="DIR", help="New folder.  [default: runs/<dataset>-<date>-<time>]")
@RESUME
@TIMEOUT
@DRY_RUN
def run(resume: Path | None, timeout: int | None, dry_run: bool, **asked: Any) -> None:
    """Run the lessons headless, with the given parameters, and save the results in a new folder.

    The folder will contain the executed notebooks, an index.html to open, results.csv with one row per training run,
    and run.json. Without --dataset, the data is mnist, or mnist_5k if MNIST is not available.

    \b
    Example:
        transfer-tutorial run --only 03,05 -p seeds "[0, 1]" -p epochs 10
    """
    with process.signals_as_exit() as received, ExitStack() as opened:
        from helpers.runner import batch

        with bad_input_in_one_line():
            process.allow_open_files()
            _settle(resume, asked)
            if resume is None:
                started = batch.new(**asked, make=not dry_run)
                if not dry_run:
                    opened.enter_context(process.lock("--out", started.folder))
            else:
                opened.enter_context(process.lock("--resume", resume))
                started = batch.resume(resume.absolute())
        for note in started.notes:
            click.echo(note)
        if dry_run:
            click.echo("\n".join(batch.outline(started)))
            return
        with resumable("run", started.folder, timeout=timeout):
            from helpers.runner import report

            with batch.recorded(started):
                failed = batch.execute(started, received, timeout)
                results = batch.write_results(started)
                index = report.write_run(started.folder, started.record, results)
            if len(results):
                click.echo("\nMean test accuracy in percent, by labels per class:\n")
                click.echo(report.result_table(results).to_string(index=False))
            click.echo(f"\nOpen {index}")
            if failed:
                raise click.ClickException(failed)


@main.command(epilog=PARAMETERS)
@click.argument("notebook", metavar="LESSON", required=False)
@click.option("--grid", "swept", multiple=True, metavar="NAME=V1,V2,...", help="Sweep over values of a parameter.")
@DATASET
@FILE
@GIVEN
@click.option(
    "--out",
    type=FOLDER,
    metavar="DIR",
    help="New folder, or the folder of a sweep to extend.  [default: sweeps/<notebook>-<date>-<time>]",
)
@RESUME
@click.option("--scheduler", metavar="ADDRESS", help="Run on this Dask cluster.  [default: on this machine]")
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Parallel runs.  [default: as hardware allows]")
@click.option("--store", type=FOLDER, metavar="DIR", help="Share trained networks between local runs, in DIR.")
@click.option("--retries", type=click.IntRange(0), default=0, metavar="K", help="Repeat a failing run up to K times.")
@TIMEOUT
@DRY_RUN
@click.option("--yes", is_flag=True, help="Allow more than 10,000 runs.")
def sweep(resume: Path | None, dry_run: bool, yes: bool, **asked: Any) -> None:
    """Run one lesson, or your own notebook (given by its path), once for each combination of values in a grid.

    DIR will contain the executed notebooks, results.csv with the parameters as columns, and sweep.html to open. Repeat
    the command, or use --resume, to run anything missing or failed. --grid NAME,OTHER=[V1,W1],[V2,W2] pairs values.

    \b
    Example:
        transfer-tutorial sweep 05 --grid recipe=fast,published --grid "seeds=[0],[1]" --out sweeps/recipes
    """
    with process.signals_as_exit(kill_children=False):  # Dask stops its own processes
        from helpers.runner import cluster, sweep

        how = {name: asked.pop(name) for name in HOW}
        with bad_input_in_one_line():
            process.allow_open_files()
            how["store"] = how["store"] and how["store"].absolute()
            cluster.check_options(how["scheduler"], how["workers"], how["store"])
            _settle(resume, asked)
            planned = sweep.plan(**asked, many=yes) if resume is None else sweep.resume(resume)
            if how["scheduler"] is not None:
                sweep.check_portable(planned)
        known = sweep.records(planned)
        click.echo(sweep.outlook(planned, known))
        if dry_run:
            status = {record["name"]: record["status"] for record in known}
            for name, values in planned.runs.items():
                click.echo(f"{status.get(name, 'to run'):8}{sweep.label(planned, {'parameters': values})}")
            return
        with resumable("sweep", planned.out, **how):
            if sweep.missing(planned, known):
                _run_sweep(planned, **how)
            else:
                _report_sweep(planned)
            if failure := sweep.failure(planned):
                raise click.ClickException(failure)


def _settle(resume: Path | None, asked: dict[str, Any]) -> None:
    """Join the parameters of `-f` and `-p`; raise ValueError if options besides `--resume` say what to run."""
    from helpers.runner import parameters

    if resume is not None and any(asked.values()):
        raise ValueError("--resume: the parameters come from the run to resume; omit options that say what to run")
    asked["given"] = parameters.joined(asked.pop("file"), asked["given"])


def _run_sweep(planned: "Sweep", **how: Any) -> None:
    """Execute the missing runs with a progress bar; report all results so far, even if the sweep is stopped."""
    from tqdm import tqdm

    from helpers.runner import sweep

    with ExitStack() as opened:
        with bad_input_in_one_line(ValueError):
            where, count, records = opened.enter_context(sweep.started(planned, **how))
        opened.callback(_report_sweep, planned)
        click.echo(where)
        bar, ended = tqdm(records, total=count, unit="run", disable=None), Counter[str]()
        for record in bar:
            ended[record["status"]] += 1
            if bar.disable:  # no terminal, but perhaps a log file
                click.echo(f"run {ended.total()} of {count} {record['status']}: {sweep.label(planned, record)}")
            bar.set_postfix(finished=ended["done"], failed=ended["failed"], refresh=False)


def _report_sweep(planned: "Sweep") -> None:
    """Write `results.csv` and the page of a sweep, and print where the page is."""
    from helpers.runner import report, sweep

    if (planned.out / "sweep.json").is_file():  # otherwise, the sweep was stopped before its first run
        records = sweep.records(planned)
        click.echo(f"\nOpen {report.write_sweep(planned, records, sweep.write_results(planned, records))}")
