"""A sweep: one notebook over a grid of parameters, on the processes of this machine or on a Dask cluster.

Dask schedules the runs, repeats them and survives workers that die; papermill executes each run. The notebook and the
data files that its parameters name travel to the workers as bytes, and each run's results are written here when it
ends. So workers need this package but no shared folder, and a sweep that was stopped resumes with what is missing.
A dataset that is a folder stays where it is, so such a sweep runs only on this machine.
"""

import hashlib
import itertools
import json
import os
import re
from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.datasets import is_path
from helpers.files import folder_sha256
from helpers.folders import check_folder, read_results
from helpers.runner import cluster, notebooks, pages, parameters
from helpers.runner.notebooks import Notebook
from helpers.runner.parameters import as_text
from helpers.runner.process import absolute, lock
from helpers.runner.worker import VERSION, one_line, run_notebook
from helpers.store import checksum, write_text

if TYPE_CHECKING:
    import pandas as pd
    from distributed import Client, Future

FOLDERS = ("dataset", "photos")  # parameters that may name one
KEYS = {"done": {"name", "parameters", "seconds", "results"}, "failed": {"name", "parameters", "error"}}  # of a record


@dataclass(frozen=True)
class Sweep:
    """A notebook, the grid of its runs, and everything that their results depend on."""

    notebook: Notebook
    fingerprint: str  # of what the notebook executes, with the files beside it
    code: str  # SHA-256 of the code of `helpers` that the notebook uses
    defaults: dict[str, Any]  # of the notebook's parameters
    files: dict[str, bytes]  # data files, by the path that parameters name them by
    beside: dict[str, bytes]  # files beside the notebook, by the path that its code names them by
    digests: dict[str, str]  # SHA-256 of data files and data folders, by path
    swept: tuple[str, ...]  # names of the swept parameters
    runs: dict[str, dict[str, Any]]  # the parameters of each run, by its name
    out: Path  # folder for the results
    asked: dict[str, Any]  # the request, from which `resume` plans the same sweep again


def plan(
    notebook: str | None,
    swept: Sequence[str],
    dataset: str | None,
    given: Sequence[tuple[str, str]],
    out: Path | None,
    many: bool = False,
) -> Sweep:
    """Check what the command line asks for, a grid and parameters that all runs share, as text; lay out the runs.

    Raises ValueError for what `parameters` refuses and for a folder that cannot be used, DownloadError for data that
    cannot be downloaded. More than 10,000 runs are refused unless `many`.
    """
    if notebook is None or out is None:
        raise ValueError("sweep: needs a LESSON and --out DIR, or --resume DIR alone; see sweep --help")
    chosen = notebooks.find(notebook)
    defaults = notebooks.defaults(chosen.path)
    shared = {name: _settled(name, value, defaults) for name, value in parameters.read_given(given, dataset).items()}
    grid = [
        [{name: _settled(name, value, defaults) for name, value in setting.items()} for setting in settings]
        for settings in parameters.read_grid(swept)
    ]
    parameters.check_grid(grid, shared, many)
    parameters.check([chosen], shared, grid)
    named = {name: value for name, value in defaults.items() if _names_file(value)}
    choices = parameters.choices({**named, **shared}, grid)
    files, digests = _data(choices, defaults)
    fingerprint, beside = _source(chosen)
    first = {name: values[0] for name, values in choices.items()}
    combinations = [dict(ChainMap(*settings, first)) for settings in itertools.product(*grid)]
    runs = {_name(fingerprint, defaults, values, digests): values for values in combinations}
    digests |= _earlier_digests(out.absolute(), chosen.name, fingerprint, digests)
    check_folder("--out", str(out), out.absolute())
    return Sweep(
        notebook=chosen,
        fingerprint=fingerprint,
        code=notebooks.code(chosen.path),
        defaults=defaults,
        files=files,
        beside=beside,
        digests=digests,
        swept=tuple(name for settings in grid for name in settings[0]),
        runs=runs,
        out=out.absolute(),
        asked={"notebook": notebook, "swept": swept, "dataset": dataset, "given": given, "folder": os.getcwd()},
    )


def resume(folder: Path) -> Sweep:
    """Return the sweep that was last asked for in a folder; changes to the working directory of that time, because
    values may be paths. Raises ValueError if it cannot be resumed.
    """
    folder = folder.absolute()
    try:
        asked = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))["asked"]
        options = {name: asked[name] for name in ("notebook", "swept", "dataset", "given")}
        started_in = asked["folder"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"--resume: {str(folder)!r} holds no sweep.json of a sweep that could be resumed") from error
    try:
        os.chdir(started_in)
    except OSError as error:
        raise ValueError(f"--resume: the folder in which this sweep was started, {started_in!r}, is gone") from error
    return plan(**options, out=folder, many=True)


def check_portable(sweep: Sweep) -> None:
    """Raise ValueError if the data is a folder, which cannot travel to a cluster."""
    for name in FOLDERS:
        for values in sweep.runs.values():
            if _is_data_folder(name, values.get(name)):
                raise ValueError(
                    f"{name}: {Path(values[name]).name!r} is a folder, which the machines of a cluster do not have; "
                    "sweep on this machine, or give as dataset an .npz file, which travels to them"
                )


def records(sweep: Sweep) -> list[dict[str, Any]]:
    """Return the records of all runs in the folder, finished or failed: those of this grid first, in its order.

    Damaged records are left out, and those of runs whose code of `helpers` has changed since.
    """
    order, known = {name: place for place, name in enumerate(sweep.runs)}, []
    for path in sorted((sweep.out / "runs").glob("*.json")):
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            record = json.loads(path.read_text(encoding="utf-8"))
            complete = record["status"] == "failed" or path.with_suffix(".ipynb").is_file()
            if complete and record["code"] == sweep.code and KEYS[record["status"]] <= record.keys():
                known.append(record)
    return sorted(known, key=lambda record: order.get(record["name"], len(order)))


def missing(sweep: Sweep, known: list[dict[str, Any]]) -> list[str]:
    """Return the names of the runs of the grid that have not finished, according to their records."""
    done = {record["name"] for record in known if record["status"] == "done"}
    return [name for name in sweep.runs if name not in done]


def write_results(sweep: Sweep, known: list[dict[str, Any]]) -> "pd.DataFrame":
    """Write `results.csv`, the result rows of all finished runs as text; return them. A run without any gets one row.

    A run's name, parameters and seconds come before its own columns. A parameter whose name is also a column of the
    rows is called `parameter_<name>`: the column may hold one label budget, the parameter the list of them. Another
    column whose name is taken is called `own_<name>`.
    """
    import pandas as pd

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


def table(sweep: Sweep, known: list[dict[str, Any]]) -> "pd.DataFrame":
    """Return a row per run: its parameters, and whether it is done or has failed."""
    import pandas as pd

    status = {record["name"]: record["status"] for record in known}
    table = pd.DataFrame(list(sweep.runs.values())).map(as_text)
    return table.assign(status=[status.get(name, "") for name in sweep.runs])


def varied(sweep: Sweep, known: list[dict[str, Any]]) -> list[str]:
    """Return the parameters in which runs differ: those swept, then those of other grids with runs in the folder."""
    given = [{**sweep.defaults, **record["parameters"]} for record in known]
    differing = [name for name in sweep.defaults if len({as_text(values[name]) for values in given}) > 1]
    return list(dict.fromkeys([*sweep.swept, *differing]))


def label(sweep: Sweep, record: Mapping[str, Any], names: Sequence[str]) -> str:
    """Name a run for people, by its values of these parameters, `varied` ones: a file's name leaves out defaults."""
    values = {**sweep.defaults, **record["parameters"]}
    return ", ".join(f"{name}={as_text(values[name])}" for name in names)


def outlook(sweep: Sweep, known: list[dict[str, Any]]) -> str:
    """Say how many runs are done, and how long the missing ones will take, as far as it is known."""
    to_run = len(missing(sweep, known))
    said = f"{sweep.notebook.name}: {len(sweep.runs)} runs, {len(sweep.runs) - to_run} of them done"
    seconds = [record["seconds"] for record in known if record["status"] == "done"]
    if not to_run:
        return said
    if not seconds:
        return f"{said}\nEstimate: none until the first run has finished; then the progress bar shows one"
    mean = sum(seconds) / len(seconds)
    return f"{said}\nEstimate: {to_run * mean / 60:.1f} minutes, {mean:.1f} s a run, divided by the runs at a time"


def failure(sweep: Sweep) -> str | None:
    """Say which runs of the grid failed, None if none did."""
    failed = [record for record in records(sweep) if record["status"] == "failed" and record["name"] in sweep.runs]
    if not failed:
        return None
    return f"{len(failed)} of {len(sweep.runs)} runs failed, {failed[0]['name']}: {failed[0]['error']}"


@contextmanager
def started(
    sweep: Sweep, scheduler: str | None, workers: int | None, **settings: Any
) -> Iterator[tuple[str, int, Iterator[dict[str, Any]]]]:
    """Connect to the workers and lock the folder; yield what there is to say of them, the number of missing runs, and
    the record of each of these runs when it ends.

    A run fails if a cell takes longer than `timeout` seconds, and is repeated up to `retries` times; runs keep trained
    networks in the folder `store`, unless it is None. Raises as `cluster.connect` does, and ValueError if another
    process is at work in the folder.
    """
    with cluster.connect(scheduler, workers) as (client, limits):
        sweep.out.mkdir(parents=True, exist_ok=True)
        with lock("--out", sweep.out):
            to_run = missing(sweep, records(sweep))  # another process may have finished some meanwhile
            places = sum(client.nthreads().values())
            where = f"{len(to_run)} to run, {places} at a time; Dask's dashboard: {client.dashboard_link}"
            yield where, len(to_run), _execute(client, sweep, to_run, {**limits, **settings})


def _execute(
    client: "Client", sweep: Sweep, runs: Sequence[str], settings: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Execute runs on the workers; write each one's record and notebook when it ends, and yield the record.

    Dask repeats a run whose worker dies. Raises ConnectionError if the scheduler goes away; what was yielded by then is
    written.
    """
    import dask
    from distributed import as_completed

    _save(sweep)
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
        # A task, because scattered data would be lost with its worker; the runs carry only its key.
        sent: Future[dict[str, Any]] = client.submit(dict, payload)
        keys, given = [f"run-{name}" for name in runs], [sweep.runs[name] for name in runs]
        futures = client.map(run_notebook, given, payload=sent, key=keys, retries=settings["retries"])
    ended = as_completed(futures, with_results=True, raise_errors=False)
    del futures  # so that each result is freed, here and on its worker, once it is written
    for future, result in ended:
        if future.status not in ("finished", "error"):
            raise ConnectionError("--scheduler: it is gone, or forgot this sweep; runs that finished are kept")
        error = result[1] if future.status == "error" else None
        outcome = {"error": one_line(error), **getattr(error, "outcome", {})} if error else result
        yield _write(sweep, future.key.removeprefix("run-"), outcome)


def _settled(name: str, value: Any, defaults: Mapping[str, Any]) -> Any:
    """Return a parameter's value in the form that is recorded: data folders absolute, numbers in the default's type."""
    return absolute(value) if _is_data_folder(name, value) else parameters.typed(value, defaults.get(name))


def _data(choices: Mapping[str, Sequence[Any]], defaults: Mapping[str, Any]) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return the files that the values of parameters name, and MNIST's if a run takes it from a file; and the SHA-256
    of these files and of data folders; all by path.
    """
    values = [(name, value) for name, values in choices.items() for value in values]
    paths = {value for _, value in values if _names_file(value)}
    if "MNIST_NPZ" in os.environ and "mnist" in choices.get("dataset", [defaults.get("dataset")]):
        paths.add(os.environ["MNIST_NPZ"])
    files = {path: Path(os.path.expanduser(path)).read_bytes() for path in sorted(paths)}
    digests = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
    return files, digests | {
        value: folder_sha256(Path(value)) for name, value in values if _is_data_folder(name, value)
    }


def _source(notebook: Notebook) -> tuple[str, dict[str, bytes]]:
    """Return the SHA-256 of all that a notebook executes, and the files beside a custom one that belong to it."""
    fingerprint = notebooks.fingerprint(notebook.path)
    if notebook.number:
        return fingerprint, {}
    beside = {name: path.read_bytes() for name, path in notebooks.named_files(notebook.path)}
    return checksum([fingerprint, beside]) if beside else fingerprint, beside


def _name(fingerprint: str, defaults: Mapping[str, Any], passed: Mapping[str, Any], digests: Mapping[str, str]) -> str:
    """Name a run by what differs from the defaults, for people, and by a digest of notebook, parameters and data.

    Whether a parameter is swept or shared makes no difference, so a grid can grow by another parameter.
    """
    values = {**defaults, **passed}
    words = [f"{name}={as_text(value)[-24:]}" for name, value in values.items() if value != defaults[name]]
    label = re.sub(r"[^\w.=+,-]+", "_", ",".join(words) or "defaults", flags=re.ASCII)  # one byte each in a file's name
    origin = [fingerprint, {name: [value, digests.get(as_text(value))] for name, value in values.items()}]
    return f"{label[:120]}-{checksum(origin)[:12]}"


def _earlier_digests(out: Path, notebook: str, fingerprint: str, digests: Mapping[str, str]) -> dict[str, str]:
    """Return the SHA-256 of data that earlier runs in a folder used, by path; raise ValueError if the folder holds
    anything but runs of this notebook on the same data.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return {}
    try:
        before = json.loads((out / "sweep.json").read_text(encoding="utf-8"))
        known, content, name = dict(before["files"]), before["content"], before["notebook"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"--out: {str(out)!r} exists and is not the folder of a sweep; give a new one") from error
    if content != fingerprint:
        which = "an earlier state of it" if name == notebook else f"another notebook, {name}"
        raise ValueError(f"--out: {str(out)!r} holds runs of {which}, and each sweep needs its own; give a new one")
    for path in digests.keys() & known.keys():
        if digests[path] != known[path]:
            raise ValueError(f"--out: {str(out)!r} holds runs with another content of {path!r}; give a new folder")
    return known


def _names_file(value: Any) -> bool:
    """Tell whether a value is the path of a file that exists, rather than a word."""
    with suppress(OSError, ValueError):
        looks_like_one = isinstance(value, str) and bool(re.search(r"[./\\]", value))
        return looks_like_one and os.path.isfile(os.path.expanduser(value))
    return False


def _is_data_folder(name: str, value: Any) -> bool:
    """Tell whether a parameter names a folder of images."""
    return name in FOLDERS and is_path(value) and os.path.isdir(os.path.expanduser(value))


def _save(sweep: Sweep) -> None:
    """Write `sweep.json`: what the results in the folder depend on, and what was asked for last."""
    identity = {"notebook": sweep.notebook.name, "content": sweep.fingerprint, "files": sweep.digests}
    write_text(sweep.out / "sweep.json", json.dumps({**identity, "asked": sweep.asked}, indent=1))


def _write(sweep: Sweep, name: str, outcome: dict[str, Any]) -> dict[str, Any]:
    """Write the outcome of a run, last its record, which says that everything is there; return the record."""
    status, notebook = "failed" if "error" in outcome else "done", outcome.pop("notebook", "")
    body = outcome.pop("body", "")
    for file, content in outcome.pop("extra", {}).items():
        (sweep.out / "runs" / name).mkdir(parents=True, exist_ok=True)
        (sweep.out / "runs" / name / file).write_bytes(content)
    record = {"name": name, "code": sweep.code, "status": status, "parameters": sweep.runs[name], **outcome}
    if notebook:
        links = [("../sweep.html", "All runs of this sweep"), (f"{name}.ipynb", "This one as a notebook")]
        about = label(sweep, record, sweep.swept)
        page = pages.render("page.html", title=about, about=about, links=links, body=body)
        write_text(sweep.out / "runs" / f"{name}.ipynb", notebook)
        write_text(sweep.out / "runs" / f"{name}.html", page)
    write_text(sweep.out / "runs" / f"{name}.json", json.dumps(record, indent=1, default=str))
    return record
