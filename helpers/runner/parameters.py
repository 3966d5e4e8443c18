"""Parameters: read them from text, and check them before anything runs.

This is the runner's only module that knows about networks, recipes and plans. It does not import TensorFlow.
"""

import hashlib
import json
import math
import os
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import yaml

from helpers import backbones, cnn, datasets, experiment, folders, photos, starts, tasks, training, transfer
from helpers.files import folder_sha256
from helpers.images import Dataset
from helpers.messages import listed
from helpers.runner import notebooks
from helpers.runner.notebooks import Notebook
from helpers.runner.process import absolute

TYPE_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text", list: "a list"}
CLASS_LISTS = ("source_classes", "target_classes")  # by number or by name
BACKBONE = "backbone_weights"  # a lesson with this parameter also has backbone_width, photos and photo_size
FOLDERS = ("dataset", "photos", "my_images")  # parameters that may name a folder
MOST_RUNS = 10_000  # largest grid without --yes
Grid = Sequence[Sequence[dict[str, Any]]]  # for each --grid, its settings: the values of one or more parameters by name


def read(name: str, text: str) -> Any:
    """Parse a parameter's text into a value: JSON, or else YAML, which allows words without quotes.

    A word that neither JSON nor Python reads as a number, a boolean or null stays text: 010, 1:30, yes. Unless all
    classes are whole numbers, they are names, exactly as written: folders may be called no, 01 and 1e3.
    """
    classes = name in CLASS_LISTS
    try:
        try:
            value = json.loads(text)
        except ValueError:
            value = None if classes else yaml.load(text, _Loader)
        if classes and not _all_whole(value):
            composed = unicodedata.normalize("NFC", text)  # like stored class names
            value = yaml.load(composed, yaml.BaseLoader)  # makes everything text
        if _travels(value):
            return value
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:  # such as !!int x, a list as a key
        raise ValueError(f"{name}: {text!r} cannot be read as YAML; values look like 3, adam or [0, 1, 2]") from error
    raise ValueError(f"{name}: {text!r} is not allowed; use numbers, UTF-8 text, lists, and mappings with text as keys")


def read_given(given: Sequence[tuple[str, str]], dataset: str | None = None) -> dict[str, Any]:
    """Read the values of `-p NAME VALUE` and `--dataset`; raise ValueError for a name given twice."""
    names = [name for name, _ in given]
    if len(set(names)) < len(names):
        raise ValueError(f"{max(names, key=names.count)}: -p sets it twice; set it once")
    values = {name: read(name, text) for name, text in given}
    if dataset is not None and values.setdefault("dataset", dataset) != dataset:
        raise ValueError(f"dataset: is given twice, as {dataset!r} and {values['dataset']!r}; give it once")
    return values


def joined(file: Path | None, given: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the parameters from a YAML file, as in papermill's `-f`, and from `-p`, which takes precedence."""
    try:
        node = yaml.compose(file.read_text("utf-8-sig"), _Loader) if file else yaml.MappingNode("", [])
        texts = {name.value: yaml.serialize(value) for name, value in node.value if name.value not in dict(given)}
    except (OSError, yaml.YAMLError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"-f: {str(file)!r} is not a YAML file with parameters such as seeds: [0, 1]") from error
    return [*((name, json.dumps(read(name, text), ensure_ascii=False)) for name, text in texts.items()), *given]


def _travels(value: Any) -> bool:
    """Tell whether papermill passes a value on unchanged; it turns bytes, dates and keys of mappings into text."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _travels([key, entry]) for key, entry in value.items())
    if isinstance(value, str):
        return value == value.encode("utf-8", "ignore").decode()  # no lone surrogates
    return all(map(_travels, value)) if isinstance(value, list) else isinstance(value, int | float | None)


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """YAML's safe loader, limited to literals of JSON and Python, because YAML reads 010 as 8 and 1:30 as 90."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}


for _kind, _word in {
    "null": r"null|None|~|",
    "bool": r"[Tt]rue|[Ff]alse",
    "int": r"[-+]?(0|[1-9](_?\d)*)",
    "float": r"[-+]?((\d+(\.\d*)?|\.\d+)[eE][-+]?\d+|\d+\.\d*|\.\d+)|[-+]?\.inf|\.nan",
}.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(rf"({_word})$"), None)


def _all_whole(value: Any) -> bool:
    return all(map(_all_whole, value)) if isinstance(value, list) else type(value) is int


def read_grid(swept: Sequence[str]) -> Grid:
    """Parse `NAME=V1,V2,...` as the entries of a list, so that values that are lists keep their commas, and
    `NAME,OTHER=[V1,W1],[V2,W2]` as pairs of values.
    """
    grid, known = [], set[str]()
    for text in swept:
        names, equals, values = text.partition("=")
        if not equals:
            raise ValueError(f"--grid: {text!r} is not of the form NAME=V1,V2,...")
        together = names.split(",")
        for name in together:
            if name in known:
                raise ValueError(f"{name}: --grid sets it twice; give all values at once")
            known.add(name)
        entries = read(names, f"[{values}]")
        if not entries:
            raise ValueError(f"{names}: --grid gives it no values; list some, such as --grid {together[0]}=1,2")
        rows = entries if len(together) > 1 else [[entry] for entry in entries]
        for row in rows:
            if not isinstance(row, list) or len(row) != len(together):
                raise ValueError(f"{names}: {as_text(row)} is not a list of {len(together)} values, one per name")
        grid.append([dict(zip(together, row, strict=True)) for row in rows])
    return grid


def choices(values: Mapping[str, Any], grid: Grid) -> dict[str, list[Any]]:
    """Return all values of each parameter, whether shared by all runs or from the grid."""
    swept = {name: [setting[name] for setting in settings] for settings in grid for name in settings[0]}
    return {**{name: [value] for name, value in values.items()}, **swept}


def as_text(value: Any) -> str:
    """Write a parameter's value as on the command line."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def settled(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return values in their recorded form: data folders absolute, and whole numbers as floats if the default is a
    float and no digit is lost, so that 1 and 1.0 make the same run.
    """
    settled = dict(values)
    for name, value in values.items():
        if is_data_folder(name, value):
            settled[name] = absolute(value)
        if type(value) is int and isinstance(defaults.get(name), float) and abs(value) < 2**53:
            settled[name] = float(value)
    return settled


def data(runs: Sequence[Mapping[str, Any]], defaults: Mapping[str, Any]) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return two dicts by path: the contents of the files that the runs' parameters name, including MNIST's file if a
    run uses it, and the SHA-256 of the named files and of data folders.
    """
    values = {(name, value) for run in runs for name, value in run.items() if isinstance(value, str)}
    files = {value: Path(os.path.expanduser(value)).read_bytes() for _, value in sorted(values) if names_file(value)}
    digests = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
    digests |= {value: folder_sha256(Path(value)) for name, value in values if is_data_folder(name, value)}
    if "MNIST_NPZ" in os.environ and any(run.get("dataset", defaults.get("dataset")) == "mnist" for run in runs):
        files[os.environ["MNIST_NPZ"]] = Path(os.environ["MNIST_NPZ"]).read_bytes()
    return files, digests


def names_file(value: Any) -> bool:
    """Tell whether a value is the path of an existing file rather than a word."""
    return isinstance(value, str) and bool(re.search(r"[./\\]", value)) and os.path.isfile(os.path.expanduser(value))


def is_data_folder(name: str, value: Any) -> bool:
    """Tell whether a parameter names a folder of images."""
    return name in FOLDERS and datasets.is_path(value) and os.path.isdir(os.path.expanduser(value))


def check_grid(grid: Grid, given: Mapping[str, Any], many: bool) -> None:
    """Raise ValueError if the grid itself is invalid, or makes more than 10,000 runs without `many`."""
    if not grid:
        raise ValueError("--grid: there is nothing to sweep over; name a parameter, such as --grid seed=0,1,2")
    for settings in grid:
        texts = [" with ".join(map(as_text, setting.values())) for setting in settings]
        for name in settings[0]:
            if name in given:
                raise ValueError(
                    f"{name}: is given twice, by --grid and {'--dataset or ' * (name == 'dataset')}-p; use one"
                )
        if len(set(texts)) < len(texts):
            names, twice = ",".join(settings[0]), max(texts, key=texts.count)
            raise ValueError(f"{names}: --grid gives {twice} twice; give each value once")
    if "run_dir" in choices(given, grid):
        raise ValueError("run_dir: does not apply to a sweep, where each run gets its own folder; leave it out")
    count = math.prod(map(len, grid))
    if count > MOST_RUNS and not many:
        raise ValueError(f"--grid: makes {count:,} runs, more than {MOST_RUNS:,}; add --yes if you want that many")


def check(chosen: Sequence[Notebook], values: Mapping[str, Any], grid: Grid = ()) -> dict[str, Dataset]:
    """Check the parameters of notebooks before anything runs, with the notebooks' defaults filled in.

    Each setting of a `--grid` is checked together with the first settings of the others. Returns the dataset that each
    of `dataset`, `photos` and `my_images` names (with its first value, if it is in the grid). Raises ValueError for a
    name that no chosen notebook has, for a type other than the default's, and for anything that the lessons themselves
    would refuse; custom notebooks are checked no further. Raises DownloadError for data that cannot be downloaded.
    """
    defaults = _defaults(chosen)
    for name, entries in choices(values, grid).items():
        if name not in defaults:
            raise ValueError(
                f"{name}: no parameter of {listed(notebook.name for notebook in chosen)} has this name; "
                f"known parameters: {listed(sorted(defaults)) or 'none, because no cell is tagged parameters'}"
            )
        for value in entries:
            allowed = [defaults[name], [""]] if name in CLASS_LISTS else [defaults[name]]
            if not any(_fits(value, default) for default in allowed):
                wanted = TYPE_NAMES.get(type(defaults[name]), type(defaults[name]).__name__)
                raise ValueError(f"{name}: {value!r} is not {wanted} like the default, {defaults[name]!r}")
    if not all(notebook.number for notebook in chosen):
        return {}
    load = cache(lambda read, name, size: read(name, size))  # reads each dataset only once
    first = {**defaults, **{name: entries[0] for name, entries in choices(values, grid).items()}}
    loaded = _check_values(first, load)
    for settings in grid:
        for setting in settings[1:]:
            _check_values({**first, **setting}, load)
    return loaded


def backbone(chosen: Sequence[Notebook], values: Mapping[str, Any]) -> dict[str, str | None] | None:
    """Return the file and hash of the weights that the notebooks use with these values, or None if they use none."""
    given = {**_defaults(chosen), **values}
    return backbones.weights_facts(given["backbone_width"], given["backbone_weights"]) if BACKBONE in given else None


def strategy_meanings() -> dict[str, str]:
    """Return a description of each strategy, in order."""
    return {name: strategy.meaning for name, strategy in transfer.STRATEGIES.items()}


def _defaults(chosen: Sequence[Notebook]) -> dict[str, Any]:
    return {name: default for notebook in chosen for name, default in notebooks.defaults(notebook.path).items()}


def _check_values(given: dict[str, Any], load: Callable[..., Dataset]) -> dict[str, Dataset]:
    """Raise any error that the lessons' own function calls would raise, but before they run."""
    if "run_dir" in given:
        folders.run_folder(given["run_dir"])
    _make(training.Recipe, given)
    if "recipe" in given:
        training.named_recipe(given["recipe"])
    if "frozen_convs" in given:
        transfer.check_frozen_convs(given["frozen_convs"])
    if "dataset" not in given:
        return {}
    dataset = load(datasets.load_dataset, given["dataset"], given.get("image_size", 0))
    _make(cnn.Architecture, {**given, "image_shape": dataset.train.images.shape[1:]})
    if {"source_classes", "target_classes"} <= given.keys():
        split = {name: given[name] for name in ("validation_fraction", "seed") if name in given}
        tasks.split_tasks(dataset, given["source_classes"], given["target_classes"], **split)
        if {"labels_per_class", "seeds"} <= given.keys():
            _make(experiment.Plan, given).check(dataset)
    loaded = {"dataset": dataset}
    if "my_images" in given:
        if given["my_images"]:
            loaded["my_images"] = load(starts.load_images, given["my_images"], given["photo_size"])
        of_classes = dataset, given["source_classes"], given["target_classes"], given["seeds"]
        starts.label_budget(given["labels"], starts.tasks_by_seed(*of_classes, loaded.get("my_images"))[1])
    if BACKBONE not in given:
        return loaded
    backbones.weights_file(given["backbone_width"], given["backbone_weights"])  # last, because it may download
    return {**loaded, "photos": load(photos.load_photos, given["photos"], given["photo_size"])}


def _make(dataclass_: type, given: dict[str, Any]) -> Any:
    """Make a dataclass from the given values that match its fields."""
    return dataclass_(**{field.name: given[field.name] for field in fields(dataclass_) if field.name in given})


def _fits(value: Any, default: Any) -> bool:
    """Tell whether a value, and each entry of a list, has the default's type; a default of None allows anything."""
    if default is None:
        return True
    if isinstance(default, list):
        return isinstance(value, list) and all(
            not default or any(_fits(entry, known) for known in default) for entry in value
        )
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(default)
