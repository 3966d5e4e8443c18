"""Copies of the lessons: to work on in any folder, and for Colab."""

import json
import re
import shutil
from pathlib import Path

import colab
import nbformat
import pytest
from click.testing import CliRunner, Result
from refusals import refused

from helpers.folders import REPOSITORY
from helpers.runner import copies
from helpers.runner.cli import main
from helpers.store import write_text

LESSONS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
ADDRESS = "https://github.com/OWNER/REPOSITORY"


def lessons(folder: object) -> Result:
    return CliRunner().invoke(main, ["lessons", str(folder)])


def links(path: Path) -> set[str]:
    """Return the targets of the links in a notebook's prose."""
    cells = nbformat.read(path, as_version=4).cells
    return {
        link for cell in cells if cell.cell_type == "markdown" for link in re.findall(r"\]\(([^)]+)\)", cell.source)
    }


def sources(path: Path) -> list[str]:
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("my course")


# Copies to work on


def test_lessons_are_written_with_their_outputs_and_no_link_that_leads_nowhere(folder):
    done = lessons(folder)
    assert done.exit_code == 0, done.output
    assert done.output.endswith("To open the first: jupyter lab 'my course/00_whole_game.ipynb'\n")
    assert [path.name for path in sorted(folder.iterdir())] == [path.name for path in LESSONS]
    for lesson in LESSONS:
        copy = folder / lesson.name
        assert sources(copy) == sources(lesson)
        if not any("../" in link for link in links(lesson)):
            assert copy.read_bytes() == lesson.read_bytes()
        assert all(link.startswith("https://") or (folder / link).is_file() for link in links(copy))


def test_what_was_computed_stays_and_what_is_missing_is_written(folder):
    lessons(folder)
    ran = json.loads((folder / LESSONS[0].name).read_text())
    for cell in ran["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "mine"}]
    (folder / LESSONS[0].name).write_text(json.dumps(ran))
    (folder / LESSONS[1].name).unlink()
    assert lessons(folder).exit_code == 0
    assert json.loads((folder / LESSONS[0].name).read_text()) == ran
    assert (folder / LESSONS[1].name).is_file()


def test_nothing_is_overwritten_and_what_differs_is_named(folder):
    folder.mkdir()
    shutil.copy(LESSONS[0], folder / LESSONS[3].name)
    (folder / LESSONS[1].name).write_text("mine")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    refusal = lessons(folder)
    assert (refusal.exit_code, refusal.output.count("\n")) == (2, 1)
    assert (
        "DIR: 'my course' already has 01_data_split.ipynb, 03_pretraining.ipynb with different cells" in refusal.output
    )
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("taken", "target", "says"),
    [
        ("file", "file/below", "DIR: 'file/below' is inside 'file', which is a file; choose a writable folder"),
        ("my course/helpers.py", "my course", "contains helpers.py, which the lessons would import; use a new folder"),
    ],
)
def test_a_folder_that_cannot_take_the_lessons_is_refused(folder, taken: str, target: str, says: str):
    write_text(Path(taken), "mine")
    refusal = lessons(target)
    assert (refusal.exit_code, refusal.output.count("\n")) == (2, 1)
    assert says in refusal.output
    assert not list(folder.glob("*.ipynb"))


def test_links_are_changed_in_prose_and_not_in_code():
    prose = "[a b](../docs/x.md#part) ![c](result.png) [d](https://e.f) [g](#h) `layers[0](../x)`\n```\n[i](j)\n```"
    cells = [{"cell_type": kind, "source": [prose]} for kind in ("markdown", "code")]
    changed, code = copies.relinked({"cells": cells}, lambda target: f"<{target}>")["cells"]
    kept = "[d](https://e.f) [g](#h) `layers[0](../x)`\n```\n[i](j)\n```"
    assert "".join(changed["source"]) == f"[a b](<docs/x.md>#part) ![c](<notebooks/result.png>) {kept}"
    assert code == cells[1]
    (bare, _) = copies.relinked({"cells": cells}, lambda target: "")["cells"]
    assert "".join(bare["source"]) == f"a b c {kept}"


# Copies for Colab


def test_a_copy_for_colab_installs_first_and_is_the_lesson_then(tmp_path):
    colab.write_copies(tmp_path / "colab", f"{ADDRESS}/")
    assert [path.name for path in sorted((tmp_path / "colab").iterdir())] == [path.name for path in LESSONS]
    for lesson in LESSONS:
        copy, before = (nbformat.read(path, as_version=4) for path in (tmp_path / "colab" / lesson.name, lesson))
        nbformat.validate(copy)
        assert [cell.cell_type for cell in copy.cells[:2]] == ["markdown", "code"]
        assert copy.cells[1].source.endswith(f"--constraint installed.txt git+{ADDRESS}")
        assert copy.metadata == before.metadata
        for ours, theirs in zip(copy.cells[2:], before.cells, strict=True):
            assert ours.get("outputs") == theirs.get("outputs")
            assert ours.cell_type == "markdown" or ours.source == theirs.source


def test_links_of_a_copy_for_colab_lead_to_the_other_copies_and_to_the_repository(tmp_path):
    colab.write_copies(tmp_path, ADDRESS)
    names = {path.name for path in LESSONS}
    for lesson in LESSONS:
        for link in links(lesson):
            target = link.removeprefix("../").partition("#")[0]
            if link in names:
                link = f"https://colab.research.google.com/github/OWNER/REPOSITORY/blob/gh-pages/colab/{link}"
            elif target != link:
                assert (REPOSITORY / target).is_file()
                link = f"{ADDRESS}/blob/HEAD/{link.removeprefix('../')}"
            assert link.startswith("https://") and link in links(tmp_path / lesson.name)


@pytest.mark.parametrize("address", ["OWNER/REPOSITORY", "https://github.com/a b", "https://github.com/a; rm", ""])
def test_an_invalid_address_is_refused(tmp_path, address: str):
    with refused("address: ", repr(address), "https://github.com/OWNER/REPOSITORY"):
        colab.write_copies(tmp_path / "copies", address)
    assert not list(tmp_path.iterdir())
