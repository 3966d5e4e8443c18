"""The lessons as notebooks: find them, read and check their parameters, execute one in a kernel of its own.

Knows notebooks, not models: nothing here imports TensorFlow.
"""

import ast
import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers import runs

if TYPE_CHECKING:
    from helpers.data import Dataset

NOTEBOOKS = runs.REPOSITORY / "notebooks"
KERNEL = "python3"
LONGEST_SOCKET_FOLDER = 90  # bytes; the whole path of a socket has 103 at most on macOS, 107 on Linux
TYPE_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", list: "a list"}


class LessonError(RuntimeError):
    """A lesson stopped at a cell that failed; `cell` is the number in the notebook's `In [...]`."""

    def __init__(self, cell: int, message: str) -> None:
        super().__init__(message)
        self.cell = cell


@dataclass(frozen=True)
class Lesson:
    """One notebook: number "03", name "03_pretraining", the title in its first heading, and its file.

    A notebook of one's own has no number.
    """

    number: str
    name: str
    title: str
    path: Path


def lessons() -> list[Lesson]:
    """Return all lessons in their order; raise ValueError if there are none, as in an installation without the
    notebooks.
    """
    found = [
        Lesson(path.name.split("_")[0], path.stem, _title(path), path)
        for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    ]
    if not found:
        raise ValueError(
            f"no lessons in {str(NOTEBOOKS)!r}; install from a clone of the repository, with pip install -e"
        )
    return found


def lesson(number: str) -> Lesson:
    """Return the lesson "03", "3" or "03_pretraining"; raise ValueError for one that does not exist."""
    known = lessons()
    for candidate in known:
        if number in (candidate.name, candidate.number, candidate.number.lstrip("0")):
            return candidate
    raise ValueError(f"lesson: {number!r} is not known; allowed are {', '.join(each.name for each in known)}")


def notebook(name: str) -> Lesson:
    """Return a lesson by its number or name, or the notebook in a file; raise ValueError for one that does not exist
    or cannot be read.
    """
    if not name.endswith(".ipynb"):
        return lesson(name)
    path = Path(name).expanduser().absolute()
    try:
        own = Lesson("", path.stem, _title(path), path)
    except OSError as error:
        raise ValueError(f"notebook: there is no file {name!r} that can be read") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"notebook: {name!r} is not a notebook of format 4, JSON with a list of cells") from error
    return next((each for each in lessons() if each.path == path.resolve()), own)


def parameters(path: Path) -> dict[str, Any]:
    """Return the defaults of a notebook's parameters by name, as papermill reads them from the cell tagged
    `parameters`; None for one that has to be computed.
    """
    import papermill

    return {name: _value(found["default"]) for name, found in papermill.inspect_notebook(_unformatted(path)).items()}


def fingerprint(path: Path) -> str:
    """Return the SHA-256 of what a notebook executes: its code cells with their tags, without outputs and prose."""
    cells = [("".join(cell["source"]), cell["metadata"].get("tags", [])) for cell in code_cells(path)]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()


def check_parameters(
    chosen: Sequence[Lesson], values: Mapping[str, Any], grid: Mapping[str, Sequence[Any]] | None = None
) -> "Dataset | None":
    """Check values for the parameters of some lessons before anything runs, the lessons' defaults filled in.

    `grid` has several values for some parameters; each is checked beside the first ones of the others. Returns the
    dataset that the (first) values name, None if no lesson has such a parameter. Raises ValueError for a name that no
    chosen lesson has, for a type that is not the default's, and for whatever the lessons themselves would refuse, of
    which nothing is known for a notebook of one's own; DownloadError for data that cannot be had.
    """
    from helpers import data

    defaults = {name: default for lesson in chosen for name, default in parameters(lesson.path).items()}
    choices = {**{name: [value] for name, value in values.items()}, **(grid or {})}
    for name, listed in choices.items():
        if name not in defaults:
            raise ValueError(
                f"{name}: no parameter of {', '.join(lesson.name for lesson in chosen)} has this name; "
                f"known are {', '.join(sorted(defaults)) or 'none, as no cell with some is tagged parameters'}"
            )
        for value in listed:
            if not _fits(value, defaults[name]):
                wanted = TYPE_NAMES.get(type(defaults[name]), type(defaults[name]).__name__)
                raise ValueError(f"{name}: {value!r} is not {wanted} like the default, {defaults[name]!r}")
    if not all(lesson.number for lesson in chosen):
        return None
    load = cache(data.load_dataset)
    first = {**defaults, **{name: listed[0] for name, listed in choices.items()}}
    dataset = _check_values(first, load)
    for name, listed in choices.items():
        for value in listed[1:]:
            _check_values({**first, name: value}, load)
    return dataset


def execute(
    lesson: Lesson,
    output: Path,
    values: dict[str, Any],
    description: str | None = None,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: int | None = None,
) -> None:
    """Execute a lesson in a fresh kernel of this interpreter and save it after each cell.

    Any number of processes can do so at once. A progress bar carries the description; there is none without. The
    kernel works in `folder`, else where this process does, and sees this process's environment variables with those
    of `environment` changed. A cell fails after `timeout` seconds.

    Raises LessonError at the first cell that fails, after the notebook up to there was saved.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.iorw import LocalHandler, papermill_io

    class WholeFiles(LocalHandler):
        """Writes a notebook so that it can be read at any moment, also after the run was killed while writing it."""

        def write(self, text: str, path: str) -> None:
            runs.write_text(Path(path), text)

    papermill_io.register(str(output), WholeFiles())
    try:
        with tempfile.TemporaryDirectory(prefix="kernel-", ignore_cleanup_errors=True) as sockets:
            papermill.execute_notebook(
                _unformatted(lesson.path),
                _unformatted(output),
                parameters=values,
                kernel_name=KERNEL,
                language="python",
                kernel_manager_class=_kernel_manager(sockets, folder, environment or {}, quiet=not description),
                progress_bar={"desc": description} if description else False,
                execution_timeout=timeout,
            )
    except papermill.PapermillExecutionError as error:
        raise LessonError(error.exec_count, f"{error.ename}: {error.evalue}") from error
    except Exception as error:  # a kernel that died or never started, a full disk
        started = sum(bool(cell["metadata"].get("papermill", {}).get("start_time")) for cell in code_cells(output))
        message = f"{type(error).__name__}: {error}"
        if isinstance(error, DeadKernelError):
            message += "; most often memory ran out, so shut other kernels down before you go on"
        raise LessonError(started, message) from error


def code_cells(notebook: Path) -> list[dict[str, Any]]:
    """Return the code cells of a notebook's file, none if there is no such file or it cannot be read."""
    try:
        return [cell for cell in json.loads(notebook.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _kernel_manager(sockets: str, folder: Path | None, environment: Mapping[str, str], quiet: bool) -> type:
    """Return a class that starts this interpreter's kernel in `folder`, with `environment` added to this process's.

    Its sockets lie in `sockets`, an empty folder for this one kernel. A quiet kernel says nothing on the terminal.
    """
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    class ThisInterpreter(AsyncKernelManager):
        """Starts this interpreter's kernel, even where the user installed another one's under the same name."""

        def __init__(self, **settings: Any) -> None:
            super().__init__(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]), **settings)
            self.transport_encryption = "auto"  # else each kernel warns on the terminal; older clients ignore it
            self.shutdown_wait_time = 1.0  # a kernel has nothing left to do then, and now and then misses the request
            # A TCP port is found free, let go and told to the kernel; meanwhile another process can be given it, and
            # then this kernel dies or never answers. Files in a folder of its own are nobody else's.
            if os.name == "posix" and len(os.fsencode(sockets)) <= LONGEST_SOCKET_FOLDER:
                self.transport, self.ip = "ipc", f"{sockets}/kernel"

        async def start_kernel(self, **settings: Any) -> None:
            """Start the kernel where it shall work; papermill's own way moves the whole process there.

            What it says beside the notebook, such as that it was asked to stop, would get in between other bars.
            """
            settings |= {"cwd": folder and str(folder), "env": {**os.environ, **environment}}
            if quiet:
                settings["stderr"] = subprocess.DEVNULL
            await super().start_kernel(**settings)

    return ThisInterpreter


def _check_values(given: dict[str, Any], load: "Callable[[str], Dataset]") -> "Dataset | None":
    """Let the functions that the lessons call refuse what they would refuse there, but now."""
    from helpers import cnn, comparison, data, training, transfer

    if "run_dir" in given:
        runs.run_folder(given["run_dir"])
    for name, seeds in (("seed", [given.get("seed", 0)]), ("seeds", given.get("seeds", []))):
        for seed in seeds:
            data.check_seed(name, seed)
    _make(training.Recipe, given)
    if "recipe" in given:
        training.named_recipe(given["recipe"])
    if "frozen_convs" in given:
        transfer.check_frozen_convs(given["frozen_convs"])
    if "dataset" not in given:
        return None
    dataset = load(given["dataset"])
    _make(cnn.Architecture, {**given, "image_shape": dataset.train.images.shape[1:]})
    if {"source_classes", "target_classes"} <= given.keys():
        split = {name: given[name] for name in ("validation_fraction", "seed") if name in given}
        data.split_tasks(dataset, given["source_classes"], given["target_classes"], **split)
        if {"strategies", "labels_per_class", "seeds"} <= given.keys():
            _make(comparison.Plan, given).check(dataset)
    return dataset


def _make(dataclass_: type, given: dict[str, Any]) -> Any:
    """Make a dataclass of those given values that it has fields for."""
    return dataclass_(**{field.name: given[field.name] for field in fields(dataclass_) if field.name in given})


def _fits(value: Any, default: Any) -> bool:
    """Tell whether a value has the type of the default; the entries of a list, of any entry of the default. None says
    nothing of a type.
    """
    if default is None:
        return True
    if isinstance(default, list):
        return isinstance(value, list) and all(
            not default or any(_fits(entry, known) for known in default) for entry in value
        )
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(default)


def _value(text: str) -> Any:
    """Read a default as papermill hands it over, Python as it stands in the cell; None for more than a literal."""
    with suppress(ValueError, SyntaxError, TypeError):
        return ast.literal_eval(text)
    return None


def _title(path: Path) -> str:
    """Return the text of a notebook's first heading, or its file name if it has none."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "markdown":
            for line in "".join(cell["source"]).splitlines():
                if line.startswith("#"):
                    return line.lstrip("#").strip()
    return path.stem


def _unformatted(path: Path) -> str:
    """Return a path that papermill, which formats paths as templates, leaves as it is."""
    return str(path).replace("{", "{{").replace("}", "}}")
