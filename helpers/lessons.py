"""The lessons as notebooks: find them, read and check their parameters, execute one in a kernel of its own.

Knows notebooks, not models: nothing here imports TensorFlow.
"""

import ast
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers import runs

if TYPE_CHECKING:
    from helpers.data import Dataset

NOTEBOOKS = runs.REPOSITORY / "notebooks"
KERNEL = "python3"
TYPE_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", list: "a list"}


class LessonError(RuntimeError):
    """A lesson stopped at a cell that failed; `cell` is the number in the notebook's `In [...]`."""

    def __init__(self, cell: int, message: str) -> None:
        super().__init__(message)
        self.cell = cell


@dataclass(frozen=True)
class Lesson:
    """One notebook: number "03", name "03_pretraining", the title in its first heading, and its file."""

    number: str
    name: str
    title: str
    path: Path


@dataclass(frozen=True)
class Parameter:
    """One line of a lesson's parameters cell: name, annotated type, default value, comment."""

    name: str
    type: str
    default: Any
    comment: str


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


def parameters(path: Path) -> dict[str, Parameter]:
    """Return the parameters of a notebook by name, as papermill reads them from the cell tagged `parameters`."""
    import papermill

    return {
        name: Parameter(name, found["inferred_type_name"], _value(found["default"]), found["help"])
        for name, found in papermill.inspect_notebook(_unformatted(path)).items()
    }


def check_parameters(chosen: Sequence[Lesson], values: dict[str, Any]) -> "Dataset | None":
    """Check values for the parameters of some lessons before anything runs, the lessons' defaults filled in.

    Returns the dataset that the values name, None if no lesson has such a parameter. Raises ValueError for a name
    that no chosen lesson has, for a type that is not the default's, and for whatever the lessons themselves would
    refuse; DownloadError for data that cannot be had.
    """
    defaults = {name: found.default for lesson in chosen for name, found in parameters(lesson.path).items()}
    for name, value in values.items():
        if name not in defaults:
            raise ValueError(
                f"{name}: no parameter of {', '.join(lesson.name for lesson in chosen)} has this name; "
                f"known are {', '.join(sorted(defaults))}"
            )
        if not _fits(value, defaults[name]):
            wanted = TYPE_NAMES.get(type(defaults[name]), type(defaults[name]).__name__)
            raise ValueError(f"{name}: {value!r} is not {wanted} like the default, {defaults[name]!r}")
    return _check_values({**defaults, **values})


def execute(lesson: Lesson, output: Path, values: dict[str, Any], description: str) -> None:
    """Execute a lesson in a fresh kernel of this interpreter, with a progress bar, and save it after each cell.

    Raises LessonError at the first cell that fails, after the notebook up to there was saved.
    """
    import papermill
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    class ThisInterpreter(AsyncKernelManager):
        """Starts this interpreter's kernel, even where the user installed another one's under the same name."""

        def __init__(self, **settings: Any) -> None:
            super().__init__(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]), **settings)
            self.transport_encryption = "auto"  # else each kernel warns on the terminal; older clients ignore it
            self.shutdown_wait_time = 1.0  # a kernel has nothing left to do then, and now and then misses the request

    try:
        papermill.execute_notebook(
            _unformatted(lesson.path),
            _unformatted(output),
            parameters=values,
            kernel_name=KERNEL,
            language="python",
            kernel_manager_class=ThisInterpreter,
            progress_bar={"desc": description},
        )
    except papermill.PapermillExecutionError as error:
        raise LessonError(error.exec_count, f"{error.ename}: {error.evalue}") from error
    except Exception as error:  # a kernel that died or never started, a full disk
        started = sum(bool(cell["metadata"].get("papermill", {}).get("start_time")) for cell in _code_cells(output))
        raise LessonError(started, f"{type(error).__name__}: {error}") from error
    except SystemExit:
        if not _code_cells(output):  # stopped in the middle of papermill's writing
            output.unlink(missing_ok=True)
        raise


def _check_values(given: dict[str, Any]) -> "Dataset | None":
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
    dataset = data.load_dataset(given["dataset"])
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
    """Tell whether a value has the type of the default; the entries of a list, of any entry of the default."""
    if isinstance(default, list):
        return isinstance(value, list) and all(any(_fits(entry, known) for known in default) for entry in value)
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(default)


def _value(text: str) -> Any:
    """Read a default as papermill hands it over: Python as it stands in the cell."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        import yaml

        return yaml.safe_load(text)


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


def _code_cells(notebook: Path) -> list[dict[str, Any]]:
    """Return the code cells of a notebook's file, none if it cannot be read."""
    try:
        return [cell for cell in json.loads(notebook.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    except (OSError, ValueError):
        return []
