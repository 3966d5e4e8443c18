"""Provenance: a result depends on versions and on the code that computes it, but not on edits elsewhere."""

import json
from pathlib import Path
from shutil import copytree

import pytest

from helpers import provenance as origins
from helpers.folders import PACKAGE
from helpers.provenance import code_of, provenance
from helpers.runner.worker import VERSION

COMPUTE = {"backend", "cnn", "experiment", "images", "tasks", "training", "transfer"}
PRINT = """
import json, sys
sys.path.insert(0, sys.argv[1])
from helpers.provenance import code_of, provenance
from helpers.runner.worker import VERSION
print(json.dumps([provenance()["code"], code_of(["statistics"]), VERSION]))
"""


def test_what_a_network_is_made_from_names_values_versions_and_code():
    origin = provenance(task="digits", classes=(5, 6), seed=0)
    assert (origin["task"], origin["classes"], origin["seed"]) == ("digits", [5, 6], 0)
    assert set(origin["versions"]) == {"tensorflow", "keras", "numpy", "scikit-learn"}
    assert len(origin["code"]) == 64 and origin == provenance(task="digits", classes=(5, 6), seed=0)


def test_a_network_depends_on_the_modules_that_compute_it(monkeypatch: pytest.MonkeyPatch):
    made_with = origins._trained_with.__wrapped__  # without its cache
    before, depends = made_with()["code"], set()
    digests = {module: origins.digest(module) for module in origins.SOURCES}
    for module in origins.SOURCES:
        monkeypatch.setattr(origins, "digest", {**digests, module: "another"}.get)
        depends |= {module} if made_with()["code"] != before else set()
        monkeypatch.undo()
    assert depends == COMPUTE


@pytest.mark.parametrize(
    ("module", "old", "new", "changed"),
    [
        ("training", '"""Training, counted', '"""Counted', (False, False, False)),
        ("training", "# share of the updates", "# part of the updates", (False, False, False)),
        ("training", "WARM_UP = 0.1", "WARM_UP = 0.2", (True, True, True)),
        ("statistics", "CONFIDENCE = 0.95", "CONFIDENCE = 0.9", (False, True, True)),
        ("plots/figures", "WIDTH = ", "WIDTH = 1 + ", (False, False, True)),
    ],
    ids=["a docstring", "a comment", "training", "statistics", "a figure"],
)
def test_what_an_edit_discards(tmp_path: Path, python, module: str, old: str, new: str, changed: tuple[bool, ...]):
    copytree(PACKAGE, tmp_path / "helpers")
    source = tmp_path / "helpers" / f"{module}.py"
    assert source.read_text().count(old) == 1
    source.write_text(source.read_text().replace(old, new))
    before, after = (provenance()["code"], code_of(["statistics"]), VERSION), json.loads(python(PRINT, tmp_path).stdout)
    assert tuple(one != other for one, other in zip(before, after, strict=True)) == changed


def test_a_process_goes_by_the_code_that_it_has_loaded_whatever_is_edited_meanwhile(tmp_path: Path, python):
    copytree(PACKAGE, tmp_path / "helpers")
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); from helpers import provenance\n"
        "with Path(provenance.__file__).with_name('training.py').open('a') as source: source.write('edited = 1\\n')\n"
        "print(provenance.provenance()['code'])"
    )
    first, second = (python(code, tmp_path).stdout for _ in range(2))
    assert first == f"{provenance()['code']}\n" != second


def test_a_network_made_with_another_version_is_another(monkeypatch: pytest.MonkeyPatch):
    made_with = origins._trained_with.__wrapped__  # without its cache
    before = made_with()
    monkeypatch.setattr(origins.importlib.metadata, "version", lambda package: "0.0")
    assert made_with() != before
