"""The store: an artefact is found only if its provenance matches, and it is found whole or not at all."""

import json
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from helpers import store

ORIGIN = {"task": "digits", "classes": [5, 6], "seed": 0}
NAME = "pretrained.bin"


def keep(folder: Path, content: bytes = b"weights", origin: dict = ORIGIN, **facts: object) -> Path:
    """Make an artefact anew, even if the store has one."""

    def make(path: Path) -> dict:
        path.write_bytes(content)
        return facts

    return store.load_or_make(folder, NAME, origin, make, lambda facts: False)[0]


def manifest_of(folder: Path) -> Path:
    (manifest,) = folder.glob("pretrained-*.json")
    return manifest


# Finding artefacts


def test_what_was_saved_is_found_with_its_facts_and_as_nothing_else(run_folder: Path):
    saved = keep(run_folder, b"weights", row={"test_errors": 3})
    assert store.find(run_folder, NAME, ORIGIN) == (saved, {"row": {"test_errors": 3}})
    assert saved.read_bytes() == b"weights"
    assert sorted(run_folder.iterdir()) == sorted([saved, manifest_of(run_folder)])  # and no temporary file
    assert store.find(run_folder, "features.bin", ORIGIN) is None


def test_what_is_kept_is_not_made_again_unless_its_facts_do_not_suffice(run_folder: Path):
    made = []

    def make(path: Path) -> dict:
        made.append(path.write_bytes(b"weights"))
        return {"watched": len(made) > 1}

    for suffices, watched in [(lambda facts: True, False)] * 2 + [(lambda facts: facts["watched"], True)] * 2:
        assert store.load_or_make(run_folder, NAME, ORIGIN, make, suffices)[1] == {"watched": watched}
    assert len(made) == 2


@pytest.mark.parametrize("changed", [{"seed": 1}, {"classes": [6, 5]}, {"epochs": 5}])
def test_an_artefact_made_from_something_else_is_not_found(run_folder: Path, changed: dict):
    keep(run_folder)
    with warnings.catch_warnings(action="error"):
        assert store.find(run_folder, NAME, {**ORIGIN, **changed}) is None


# Damaged artefacts


def altered(**changed: object) -> Callable[[Path, Path], object]:
    return lambda _, manifest: manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **changed}))


DAMAGE = {  # ways to damage an artefact and its manifest
    "other content": lambda saved, _: saved.write_bytes(b"Weights"),
    "no file": lambda saved, _: saved.unlink(),
    "an empty manifest": lambda _, manifest: manifest.write_text(""),
    "a manifest of another kind": lambda _, manifest: manifest.write_text("[]"),
    "a manifest of bytes that are no text": lambda _, manifest: manifest.write_bytes(b"\xff\xfe\x00"),
    "another file": altered(file="pretrained-0000000000000000.bin"),
    "another checksum": altered(sha256="0" * 64),
    "another provenance": altered(provenance={**ORIGIN, "seed": 1}),
    "other facts": altered(facts={"row": {"test_errors": 0}}),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_what_is_damaged_is_reported_by_name_not_used_and_can_be_made_again(run_folder: Path, damage):
    saved = keep(run_folder, row={"test_errors": 3})
    manifest = manifest_of(run_folder)
    damage(saved, manifest)
    with pytest.warns(UserWarning, match=rf"{manifest.name} .* damaged; creating it again"):
        assert store.find(run_folder, NAME, ORIGIN) is None
    keep(run_folder)
    assert store.find(run_folder, NAME, ORIGIN)[0].read_bytes() == b"weights"


# Leftovers


def test_nothing_is_left_when_writing_fails_half_way(run_folder: Path):
    def make(path: Path) -> dict:
        path.write_bytes(b"half of it")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.load_or_make(run_folder, NAME, ORIGIN, make, lambda facts: False)
    assert list(run_folder.iterdir()) == []


def test_a_text_is_written_whole_or_not_at_all(tmp_path: Path):
    store.write_text(tmp_path / "new" / "index.html", "naïve → ☃")
    assert (tmp_path / "new" / "index.html").read_text(encoding="utf-8") == "naïve → ☃"
    with pytest.raises(UnicodeEncodeError):
        store.write_text(tmp_path / "new" / "index.html", "no text: \ud800")
    assert (tmp_path / "new" / "index.html").read_text(encoding="utf-8") == "naïve → ☃"
    assert len(list((tmp_path / "new").iterdir())) == 1


SAVE_AGAIN_AND_AGAIN = """
import sys
from pathlib import Path
from helpers import store
folder, name = Path(sys.argv[1]), sys.argv[2]
(folder.parent / name).touch()
while not all((folder.parent / each).exists() for each in ("one", "two")):
    pass  # start together
for count in range(50):
    by = f"{name} {count}"
    make = lambda path: {"by": by, "bytes": path.write_bytes(by.encode() * 10_000)}
    store.load_or_make(folder, "pretrained.bin", {"seed": 0}, make, lambda facts: False)
"""


def test_two_processes_that_save_at_once_end_with_valid_artefacts(run_folder: Path, python):
    found = []
    with ThreadPoolExecutor() as pool, warnings.catch_warnings(action="error"):
        processes = [pool.submit(python, SAVE_AGAIN_AND_AGAIN, run_folder, name) for name in ("one", "two")]
        while not all(process.done() for process in processes):
            if (seen := store.find(run_folder, NAME, {"seed": 0})) is not None:
                found.append(seen)
        found.append(store.find(run_folder, NAME, {"seed": 0}))
    assert [process.result().stderr for process in processes] == ["", ""]
    assert found[-1][1]["by"] in ("one 49", "two 49")
    assert all(file.read_bytes() == facts["by"].encode() * 10_000 for file, facts in found)
    assert not list(run_folder.glob(".*"))  # nothing half-written
