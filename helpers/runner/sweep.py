"""A sweep: one notebook, run over a grid of parameters in processes on this machine or on a Dask cluster.

Dask schedules the runs, repeats failed ones and survives workers that die; papermill executes each run. Workers need
this package but no shared folder: the notebook and data files are sent to them as bytes, and results are written here.
A folder of images is not sent, so a sweep that uses one runs only on this machine.
"""

import hashlib
import itertools
import json
import os
import re
from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from helpers import provenance
from helpers.folders import check_folder, read_results
from helpers.messages import listed
from helpers.runner import batch, cluster, notebooks, pages, parameters
from helpers.runner.notebooks import Notebook
from helpers.runner.parameters import FOLDERS, as_text
from helpers.runner.process import lock
from helpers.runner.worker import VERSION, one_line, run_notebook
from helpers.store import checksum, write_text

if TYPE_CHECKING:
    from distributed import Client, Future


@dataclass(frozen=True)
class Sweep:
    """A notebook, its runs, and everything that their results depend on."""

    notebook: Notebook
    code: str  # SHA-256 of the code of `helpers` that the notebook uses, and of package versions
    defaults: dict[str, Any]  # of the notebook's parameters
    files: dict[str, bytes]  # data files, by their path in the parameters
    beside: dict[str, bytes]  # files next to the notebook, by their path in its code
    axes: tuple[tuple[str, ...], ...]  # parameters that differ between runs, alone or in pairs
    varied: tuple[str, ...]  # all parameters in `axes`
    runs: dict[str, dict[str, Any]]  # the parameters of each run, by its name
    out: Path  # folder for the results
    record: dict[str, Any]  # the content of `sweep.json`


def plan(
    notebook: str | None,
    swept: Sequence[str],
    dataset: str | None,
    given: Sequence[tuple[str, str]],
    out: Path | None,
    many: bool = False,
) -> Sweep:
    """Check a grid and the parameters that all runs share, given as text; list the runs, and add them to any
    earlier sweep in the folder.

    Raises ValueError for an unusable folder or anything that `parameters` refuses, and DownloadError for data that
    cannot be downloaded. More than 10,000 runs are refused unless `many` is set.
    """
    if notebook is None:
        raise ValueError("sweep: LESSON is missing; name one, or use --resume DIR alone")
    chosen = notebooks.find(notebook)
    defaults = notebooks.defaults(chosen.path)
    shared = parameters.settled(parameters.read_given(given, dataset), defaults)
    grid = [[parameters.settled(setting, defaults) for setting in settings] for settings in parameters.read_grid(swept)]
    parameters.check_grid(grid, shared, many)
    parameters.check([chosen], shared, grid)
    named = {name: value for name, value in defaults.items() if parameters.names_file(value)}
    first = {**named, **shared, **{name: value for settings in grid for name, value in settings[0].items()}}
    combinations = [dict(ChainMap(*settings, first)) for settings in itertools.product(*grid)]
    out = out or Path("sweeps", f"{chosen.name}-{datetime.now():%Y%m%d-%H%M%S}")
    check_folder("--out", str(out), out.absolute())
    words = ["sweep", notebook, *(word for text in swept for word in ("--grid", text)), "--out", "repeated"]
    command = batch.command(words, dict(given) | ({"dataset": dataset} if dataset else {}))
    return _joined(chosen, out.absolute(), combinations, [tuple(settings[0]) for settings in grid], [command])


def resume(folder: Path) -> Sweep:
    """Return the sweep in a folder, and change to its original working directory, so that relative paths work."""
    folder = folder.absolute()
    before = _read_record("--resume", folder)
    try:
        os.chdir(before["folder"])
    except OSError as error:
        raise ValueError(f"--resume: the sweep was started in {before['folder']!r}, which no longer exists") from error
    return _joined(notebooks.find(before["notebook"]), folder, [], [], [])


def check_portable(sweep: Sweep) -> None:
    """Raise ValueError if the data is a folder, because folders are not sent to a cluster."""
    for name, value in {(name, as_text(values.get(name))) for values in sweep.runs.values() for name in FOLDERS}:
        if parameters.is_data_folder(name, value):
            raise ValueError(
                f"{name}: {Path(value).name!r} is a folder that the machines of a cluster don't have; "
                "sweep on this machine, or use an .npz file as the dataset, because files are sent to the cluster"
            )


def records(sweep: Sweep) -> list[dict[str, Any]]:
    """Return the records of all runs, finished or failed, made with this code and these package versions."""
    return [record for record in _stored(sweep.out, sweep.runs) if record["code"] == sweep.code]


def missing(sweep: Sweep, known: list[dict[str, Any]]) -> list[str]:
    """Return the names of the runs that have not finished, according to their records."""
    done = {record["name"] for record in known if record["status"] == "done"}
    return [name for name in sweep.runs if name not in done]


def write_results(sweep: Sweep, known: list[dict[str, Any]]) -> pd.DataFrame:
    """Write the result rows of all finished runs to `results.csv`, as text, at least one for each run; return them.

    A run's name, parameters and seconds come before its own columns. If a parameter has the name of such a column, it
    becomes `parameter_<name>`: the column may contain one label budget, the parameter the list of them. Any other
    column whose name is taken becomes `own_<name>`.
    """
    done = [record for record in known if record["status"] == "done"]
    names = dict.fromkeys(name for record in done for name in record["parameters"])
    tables = [read_results(map(StringIO, record["results"])) for record in done]
    tables = [table if len(table) else pd.DataFrame(index=[0]) for table in tables]
    taken = {"run", "run_seconds"}.union(*tables)
    for place, (record, table) in enumerate(zip(done, tables, strict=True)):
        values = {name: as_text(record["parameters"].get(name, sweep.defaults[name])) for name in names}
        columns = {f"parameter_{name}" if name in taken else name: value for name, value in values.items()}
        lead = {"run": record["name"], **columns, "run_seconds": str(record["seconds"])}
        own = table.rename(columns=lambda name, lead=lead: f"own_{name}" if name in lead else name)
        tables[place] = pd.DataFrame(lead, index=own.index).join(own)
    rows = pd.concat(tables, ignore_index=True).fillna("") if tables else pd.DataFrame(columns=["run", "run_seconds"])
    write_text(sweep.out / "results.csv", rows.to_csv(index=False))
    return rows


def label(sweep: Sweep, record: Mapping[str, Any]) -> str:
    """Return a readable name for a run: the values of the parameters that differ between runs."""
    values = {**sweep.defaults, **record["parameters"]}
    return ", ".join(f"{name}={as_text(values[name])}" for name in sweep.varied)


def outlook(sweep: Sweep, known: list[dict[str, Any]]) -> str:
    """Return the number of finished runs and, if any run has finished, a time estimate for the missing ones."""
    to_run = len(missing(sweep, known))
    said = f"{sweep.notebook.name}: {len(sweep.runs)} runs, {len(sweep.runs) - to_run} of them done"
    if stale := sum(each["status"] == "done" and each["code"] != sweep.code for each in _stored(sweep.out, sweep.runs)):
        said += f"\nNote: runs that finished with different code or versions count as missing and run again: {stale}"
    seconds = [record["seconds"] for record in known if record["status"] == "done"]
    if not to_run or not seconds:
        return said
    mean = sum(seconds) / len(seconds)
    estimate = f"{to_run * mean / 60:.1f} minutes of computing at {mean:.1f} s per run, shared by all parallel runs"
    return f"{said}\nEstimate: {estimate}"


def failure(sweep: Sweep) -> str | None:
    """Return the number of failed runs and the first error, or None if no run failed."""
    failed = [record for record in records(sweep) if record["status"] == "failed"]
    if not failed:
        return None
    first = f"the first error ({label(sweep, failed[0])}): {failed[0]['error']}"
    return f"{len(failed)} of {len(sweep.runs)} runs failed; {first}"


@contextmanager
def started(
    sweep: Sweep, scheduler: str | None, workers: int | None, **settings: Any
) -> Iterator[tuple[str, int, Iterator[dict[str, Any]]]]:
    """Connect to the workers and lock the folder; yield a line about the workers, the number of missing runs, and each
    run's record when it ends.

    The settings are the options `timeout`, `retries` and `store`. Raises the errors of `cluster.connect`, and
    ValueError if another process is working in the folder.
    """
    with cluster.connect(scheduler, workers) as (client, limits):
        sweep.out.mkdir(parents=True, exist_ok=True)
        with lock("--out", sweep.out):
            to_run = missing(sweep, records(sweep))  # meanwhile, another process may have finished some
            places = sum(client.nthreads().values())
            where = f"{len(to_run)} to run, {places} in parallel; Dask's dashboard: {client.dashboard_link}"
            if not places:
                where += f"\nNo worker has connected yet; start one: dask worker {scheduler}"
            yield where, len(to_run), _execute(client, sweep, to_run, {**limits, **settings})


def _execute(
    client: "Client", sweep: Sweep, runs: Sequence[str], settings: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Execute runs on the workers; write each run's record and notebook when the run ends, and yield the record.

    Raises ConnectionError if the scheduler goes away.
    """
    import dask
    from distributed import as_completed

    write_text(sweep.out / "sweep.json", json.dumps(sweep.record, indent=1))
    mnist = {name: os.environ[name] for name in ("MNIST_NPZ",) if os.environ.get(name) in sweep.files}
    payload = {
        "notebook": sweep.notebook.path.read_bytes(),
        "files": sweep.files,
        "beside": sweep.beside,
        "version": VERSION,
        "environment": mnist,
        **settings,
    }
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 GiB"}):
        # Sent as a task, because scattered data would be lost with a worker; runs carry only the task's key.
        sent: Future[dict[str, Any]] = client.submit(dict, payload)
        keys, given = [f"run-{name}" for name in runs], [sweep.runs[name] for name in runs]
        futures = client.map(run_notebook, given, payload=sent, key=keys, retries=settings["retries"])
    ended = as_completed(futures, with_results=True, raise_errors=False)
    del futures  # so that each result is freed, here and on its worker, once it is written
    for future, result in ended:
        if future.status not in ("finished", "error"):
            raise ConnectionError("--scheduler: the scheduler stopped or dropped this sweep; finished runs are kept")
        error = result[1] if future.status == "error" else None
        outcome = {"error": one_line(error), **getattr(error, "outcome", {})} if error else result
        yield _write(sweep, future.key.removeprefix("run-"), outcome)


def _joined(
    notebook: Notebook,
    out: Path,
    combinations: list[dict[str, Any]],
    axes: list[tuple[str, ...]],
    commands: list[str],
) -> Sweep:
    """Return a sweep of runs with these parameters, added to the sweep that is in the folder, if there is one.

    A run is identified by a digest of notebook, parameters and data, no matter which parameters were swept.
    """
    before = _read_record("--out", out) if out.is_dir() and any(out.iterdir()) else {}
    defaults, beside = notebooks.defaults(notebook.path), dict[str, bytes]()
    if not notebook.number:
        beside = {name: path.read_bytes() for name, path in notebooks.named_files(notebook.path)}
    content = {notebook.path.name: notebooks.fingerprint(notebook.path)}
    content |= {name: hashlib.sha256(read).hexdigest() for name, read in beside.items()}
    runs = dict(before.get("runs", {}))
    files, digests = parameters.data([*runs.values(), *combinations], defaults)
    if before:
        now = {path: digests.get(path, "") for path in before["files"]}
        _check_unchanged(out, before, notebook, {**content, **now})
    known = {name.rpartition("-")[2]: name for name in runs}
    for values in combinations:
        given = {name: [value, digests.get(as_text(value))] for name, value in {**defaults, **values}.items()}
        words = [f"{name}={as_text(values[name])[-24:]}" for names in axes for name in names]
        said, digest = re.sub(r"[^\w.=+,-]+", "_", ",".join(words), flags=re.ASCII), checksum([content, given])[:12]
        runs[known.get(digest, f"{said[:120]}-{digest}")] = values
    axes = list(dict.fromkeys([*map(tuple, before.get("axes", [])), *axes]))
    texts = [{name: as_text(value) for name, value in {**defaults, **values}.items()} for values in runs.values()]
    differing = [name for name in defaults if len({values[name] for values in texts}) > 1]
    path = notebook.name if notebook.number else str(notebook.path)  # finds a lesson wherever the course is installed
    commands = list(dict.fromkeys([*before.get("commands", []), *commands]))
    record = {"notebook": path, "folder": os.getcwd(), **before, "commands": commands, "axes": axes, "runs": runs}
    record |= {"content": content, "files": digests}
    batch.record_made_with(record)
    versions = [record["made_with"]["versions"][package] for package in provenance.PACKAGES]
    return Sweep(
        notebook=notebook,
        code=checksum([notebooks.code(notebook.path), versions]),
        defaults=defaults,
        files=files,
        beside=beside,
        axes=(*axes, *((name,) for name in differing if name not in itertools.chain(*axes))),
        varied=tuple(dict.fromkeys([*itertools.chain(*axes), *differing])),
        runs=runs,
        out=out,
        record=record,
    )


def _read_record(parameter: str, folder: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError, TypeError):
        record: dict[str, Any] = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
        if "runs" in record:
            return record
    raise ValueError(f"{parameter}: {str(folder)!r} has no sweep to resume; choose a different folder")


def _check_unchanged(out: Path, before: dict[str, Any], notebook: Notebook, now: dict[str, str]) -> None:
    """Raise ValueError if a folder's runs are from a different notebook, or if the notebook or its data has changed."""
    if (name := Path(before["notebook"]).stem) != notebook.name:
        raise ValueError(f"--out: {str(out)!r} has runs of a different notebook, {name}; choose a new folder")
    then = {**before["files"], **before["content"]}
    if changed := sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name)):
        done = sum(record["status"] == "done" for record in _stored(out, before["runs"]))
        raise ValueError(
            f"--out: {listed(changed)} changed after {done} runs in {str(out)!r} had finished, so new runs would not "
            "match them; choose a new folder"
        )


def _stored(out: Path, runs: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the records of these runs, except missing and incomplete records."""
    for name in runs:
        path = out / "runs" / f"{name}.json"
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            record = json.loads(path.read_text(encoding="utf-8"))
            needed = {"done": {"seconds", "results"}, "failed": {"error"}}[record["status"]]
            complete = record["status"] == "failed" or path.with_suffix(".ipynb").is_file()
            if complete and {"name", "code", "parameters", *needed} <= record.keys():
                yield record


def _write(sweep: Sweep, name: str, outcome: dict[str, Any]) -> dict[str, Any]:
    """Write the outcome of a run and return its record, which is written last, as a sign that the rest is complete."""
    status, notebook = "failed" if "error" in outcome else "done", outcome.pop("notebook", "")
    lacks = re.search(r"ModuleNotFoundError: No module named '(\w+)'", outcome.get("error", ""))
    if lacks and (sweep.notebook.path.parent / f"{lacks[1]}.py").is_file():
        outcome["error"] += "; only files named in a string in the notebook are sent along, so start the notebook with:"
        outcome["error"] += f" sys.path.append(os.path.dirname(os.path.abspath('{lacks[1]}.py')))"
    body = outcome.pop("body", "")
    for file, content in outcome.pop("extra", {}).items():
        (sweep.out / "runs" / name).mkdir(parents=True, exist_ok=True)
        (sweep.out / "runs" / name / file).write_bytes(content)
    record = {"name": name, "code": sweep.code, "status": status, "parameters": sweep.runs[name], **outcome}
    if notebook:
        links = [("../sweep.html", "All runs of this sweep"), (f"{name}.ipynb", "This run as a notebook")]
        about = label(sweep, record)
        page = pages.render("page.html", title=about, about=about, links=links, body=body)
        write_text(sweep.out / "runs" / f"{name}.ipynb", notebook)
        write_text(sweep.out / "runs" / f"{name}.html", page)
    write_text(sweep.out / "runs" / f"{name}.json", json.dumps(record, indent=1, default=str))
    return record
