"""One run of a sweep, on a worker: unpack what it needs, execute the notebook, hand back what came out.

A worker needs this package and no shared folder: the notebook and the data files arrive as bytes.
"""

import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from helpers import __version__
from helpers.provenance import SOURCES, digest
from helpers.runner import notebooks, pages
from helpers.runner.notebooks import CellError, Notebook
from helpers.runner.parameters import as_text
from helpers.store import checksum

VERSION = f"{__version__}+{checksum({module: digest(module) for module in SOURCES})[:12]}"  # of this code


class RunError(RuntimeError):
    """A run failed on its worker; `outcome` is what there is of it, as `run_notebook` returns it."""

    def __init__(self, message: str, outcome: dict[str, Any] | None = None) -> None:
        super().__init__(message)  # without the outcome, which Dask would keep as text a second time
        self.outcome = outcome or {}


def run_notebook(given: dict[str, Any], payload: dict[str, Any]) -> dict[str, Any]:
    """Execute one run, on a worker, in a folder that is deleted afterwards.

    `payload` is what all runs share: the notebook, the files `beside` it, the data files, the version of this package,
    the settings of `sweep.execute`. The outcome holds the executed `notebook` as text, the `body` of its page, the text
    of each `results-*.csv` in its working directory or run folder, and the `seconds` that it took. Raises RunError with
    the outcome if a cell fails, or results cannot be read.
    """
    import nbformat

    if payload["version"] != VERSION:
        raise RunError(f"this worker has version {VERSION} of this package, and the sweep {payload['version']}")
    start, failed = time.perf_counter(), dict[str, Any]()
    with tempfile.TemporaryDirectory(prefix="transfer-tutorial-", ignore_cleanup_errors=True) as temporary:
        home, notebook, output = (Path(temporary, name) for name in ("run", "notebook.ipynb", "executed.ipynb"))
        home.mkdir()
        notebook.write_bytes(payload["notebook"])
        for name, content in payload["beside"].items():
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).write_bytes(content)
        here = _unpack(payload["files"], Path(temporary))
        values = {name: here.get(as_text(value), value) for name, value in given.items()}
        environment = {name: here.get(value, value) for name, value in payload["environment"].items()}
        environment["TRANSFER_TUTORIAL_HOME"] = str(home)
        try:
            settings = {"folder": home, "environment": environment, "timeout": payload["timeout"]}
            with _limited_memory(payload["memory"]):
                notebooks.execute(Notebook("", "", "", notebook), output, values, **settings)
        except CellError as error:
            failed = {"cell": error.cell, "error": one_line(error)}
        results = []
        for path in sorted(home.rglob("results-*.csv")):
            try:
                results.append(path.read_text(encoding="utf-8"))
            except UnicodeDecodeError:
                failed = failed or {"error": f"{path.name} is not UTF-8 text; write it with encoding='utf-8'"}
            else:
                header = results[-1].partition("\n")[0]
                if "," not in header and {*";\t"} & {*header}:
                    failed = failed or {"error": f"{path.name} has no commas between columns; write it with sep=','"}
        executed = output.read_text(encoding="utf-8") if output.is_file() else ""
        seconds = round(time.perf_counter() - start, 2)
        body = pages.body(nbformat.reads(executed, as_version=4)) if executed else ""  # here, not one by one later
        outcome = {"notebook": executed, "body": body, "results": results, "seconds": seconds, **failed}
    if failed:  # raised out here: a cause, which Dask would send along, does not survive its pickling
        raise RunError(failed["error"], outcome)
    return outcome


@contextmanager
def _limited_memory(limit: int | None) -> Iterator[None]:
    """Kill a kernel of this worker that takes more than so many bytes; Dask watches the worker's own process alone."""
    import psutil

    over = threading.Event()

    def watch() -> None:
        while limit and not over.wait(0.5):
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    if process.memory_info().rss > limit:
                        process.kill()

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _unpack(files: Mapping[str, bytes], folder: Path) -> dict[str, str]:
    """Write files into folders of their own, as their names may show in results; return where each path is now."""
    here = {}
    for number, (path, content) in enumerate(files.items()):
        copy = folder / str(number) / Path(path).name
        copy.parent.mkdir()
        copy.write_bytes(content)
        here[path] = str(copy)
    return here


def one_line(error: BaseException) -> str:
    """Return an error as one line, with its type where the text has none."""
    kind = "" if isinstance(error, RunError | CellError) else f"{type(error).__name__}: "
    return " ".join(f"{kind}{error}".split())[:1000]
