"""Teaching a class with nbgrader: handouts, submissions of all kinds, points, and the checks' replies."""

import copy
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest
from click.testing import CliRunner, Result
from IPython.core.inputtransformer2 import TransformerManager
from nbformat.v4 import new_code_cell, new_notebook, new_output
from refusals import refused

from helpers import plots
from helpers.folders import REPOSITORY
from helpers.runner import assignments, copies, notebooks
from helpers.runner.cli import main
from helpers.store import write_text

LESSONS = notebooks.lessons()
IN_CI = bool(os.environ.get("CI"))  # in CI, missing tools are failures
# Ids in gradebooks, which must never change, not even if an exercise moves.
IDS = {
    "01_data_split": {"exercise-1": "tasks", "exercise-2": "baseline", "exercise-3": "three_parts"},
    "02_cnn_build": {"exercise-1": "convolved", "exercise-2": "parameters", "exercise-3": "multiply_adds"},
    "03_pretraining": {"exercise-1": "cross_entropy", "exercise-2": "updates", "exercise-3": "descended"},
    "04_freezing": {"exercise-1": "freeze_convolutions", "exercise-2": "trainable", "exercise-3": "freeze_head"},
    "05_transfer_comparison": {
        "exercise-1": "paired",
        "exercise-2": "by_seed",
        "exercise-3": "word",
        "exercise-4": "transfer",
    },
    "06_pretrained_network": {
        "exercise-1": "rescaled",
        "exercise-2": "trainable",
        "exercise-3": "freeze_normalization",
    },
    "07_decide": {"exercise-1": "standard_error", "exercise-2": "leaks", "exercise-3": "regret"},
}


def cells(path: Path) -> list[nbformat.NotebookNode]:
    return nbformat.read(path, as_version=4).cells


def graded(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in cells(path) if "nbgrader" in cell.metadata]


# The lessons, and their checks


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_each_checked_exercise_has_a_point_and_an_id_that_never_changes(lesson):
    found = {}
    for cell in graded(lesson.path):
        about = cell.metadata.nbgrader
        assert (about.grade, about.solution, about.locked, about.points) == (True, True, False, 1)
        (found[about.grade_id],) = re.findall(r"(?m)^checks\.(\w+)\(", cell.source)
    assert found == IDS.get(lesson.name, {})


def test_the_plans_name_parts_of_the_lessons_that_hold_the_exercises_named_with_them():
    guide = (REPOSITORY / "docs" / "teachers.md").read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^\| \d+ to \d+ \| (\d\d) \| (.*?) \|", guide)
    named = {(lesson, said): re.findall(r"\*([A-Z][^*]+)\*", said) for lesson, said in rows}
    assert sum(map(len, named.values())) >= 4
    for (lesson, said), parts in named.items():
        prose = "\n".join(cell.source for cell in cells(LESSONS[int(lesson)].path) if cell.cell_type == "markdown")
        taught = [prose.index(f"\n## {part}\n") for part in parts]  # an error here means that there is no such section
        end = prose.index("\n## ", max(taught) + 1) if taught else len(prose)
        for number in re.findall(r"exercises? (\d)(?: and (\d))?", said):
            assert all(prose.index(f"**Exercise {each}.") < end for each in filter(None, number)), said


ASKED = """
from helpers import checks
for answer in (1664, 1600, ...):
    try:
        print(checks.parameters(answer, 64, 5, 1))
    except AssertionError as error:
        print("raised:", error)
"""


def test_a_check_raises_its_own_words_where_nbgrader_runs_it_and_nowhere_else(python, monkeypatch):
    soft = python(ASKED).stdout
    assert soft.startswith("Right.\nNot yet: those are only the weights;") and "raised" not in soft
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    right, wrong, missing = python(ASKED).stdout.splitlines()
    assert right == "Right."
    assert wrong.startswith("raised: Not yet: those are only the weights; add the biases, one per filter. Hint: ")
    assert missing.startswith("raised: Not answered yet: ")


# The command that prepares a class


def command(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)])


@pytest.fixture(scope="module")
def course(tmp_path_factory) -> Path:
    """Write a course folder, with parameters that differ from the lessons'."""
    folder = tmp_path_factory.mktemp("class") / "course"
    given = ("--dataset", "digits", "--only", "01,02,05", "-p", "seeds", "[7]", "-p", "target_classes", "[0, 1]")
    given += ("-p", "strategies", '["scratch", "frozen"]')  # a list that spans several lines in the lesson
    done = command("class", folder, *given)
    assert done.exit_code == 0 and done.output.startswith("3 assignments in "), done.output
    return folder


def test_parameters_are_set_where_they_stand_and_only_in_lessons_that_have_them(course):
    sources = sorted(course.glob("source/*/*.ipynb"))
    assert [path.stem for path in sources] == ["01_data_split", "02_cnn_build", "05_transfer_comparison"]
    given = {"dataset": "digits", "seeds": [7], "target_classes": [0, 1], "strategies": ["scratch", "frozen"]}
    for path, lesson in zip(sources, (LESSONS[1], LESSONS[2], LESSONS[5]), strict=True):
        before = notebooks.defaults(lesson.path)
        assert notebooks.defaults(path) == before | {name: given[name] for name in given if name in before}
        (old,), (new,) = (
            [cell.source for cell in cells(each) if "parameters" in cell.metadata.get("tags", [])]
            for each in (lesson.path, path)
        )
        comments = [re.findall("#.*", source) for source in (old, new)]
        assert comments[0] == comments[1] and new.startswith('dataset: str = "digits"  # "mnist", ')


def test_an_exercise_is_two_cells_the_learners_and_a_locked_check(course):
    for path in course.glob("source/*/*.ipynb"):
        found = graded(path)
        assert len(found) == 2 * len(IDS[path.stem])
        for answer, check in zip(found[::2], found[1::2], strict=True):
            name = check.metadata.nbgrader.grade_id
            assert check.source.startswith("from helpers import checks\n\nprint(checks." + IDS[path.stem][name] + "(")
            assert "checks." not in answer.source and not answer.source.endswith("\n")
            assert answer.metadata.nbgrader == {
                **{"grade": False, "solution": True, "locked": False, "task": False, "schema_version": 3},
                "grade_id": f"{name}-answer",
            }
        assert not any(cell.outputs for cell in cells(path) if cell.cell_type == "code")


def test_a_handout_installs_the_course_on_colab_alone_and_speaks_of_no_results_that_it_lacks(monkeypatch):
    monkeypatch.setattr(copies, "address", lambda: "https://example.org/course")
    for lesson in LESSONS:
        first, *rest = nbformat.reads(assignments._assignment(lesson, {}), as_version=4).cells
        code = compile(TransformerManager().transform_cell(first.source), lesson.name, "exec")
        exec(code, {"get_ipython": pytest.fail})  # helpers is importable, so nothing gets installed
        assert "git+https://example.org/course" in first.source
        given = [cell.source for cell in rest if not {"answer", "results"} & {*cell.metadata.get("tags", [])}]
        assert not [source for source in given if "Clear Outputs" in source or "results that you see" in source]


def test_nothing_is_overwritten_and_nothing_written_for_bad_input(course, tmp_path):
    before = {path: path.read_bytes() for path in course.rglob("*") if path.is_file()}
    with refused("DIR: ", "already has 02_cnn_build, which is never overwritten"):
        assignments.write(course, LESSONS[2:4], {})
    assert {path: path.read_bytes() for path in course.rglob("*") if path.is_file()} == before
    bad = command("class", tmp_path / "new", "--only", "02", "-p", "filters", "many")
    assert bad.exit_code == 2 and "filters: 'many' is not a whole number" in bad.output
    assert not (tmp_path / "new").exists()


# The checks' replies


def write_graded(course: Path, learner: str, **outputs: list) -> None:
    """Write a graded notebook for lesson 02, with outputs for its checks and for the answer above them."""
    checked = [
        new_code_cell(metadata={"nbgrader": {about: True, "grade_id": name.replace("_", "-")}}, outputs=shown)
        for name, shown in outputs.items()
        for about in ["solution" if name == "answer" else "grade"]
    ]
    path = course / "autograded" / learner / "02_cnn_build" / "02_cnn_build.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(new_notebook(cells=checked), path)


def raised(text: str, name: str = "NotRightError") -> list:
    return [new_output("error", ename=name, evalue=text, traceback=[text])]


def printed(text: str) -> list:
    return [new_output("stream", name="stdout", text=text)]


def test_misconceptions_are_counted_by_exercise_and_those_that_differ_in_numbers_are_one(tmp_path):
    biases = "Not yet: those are only the weights; add the biases. Hint: each filter has a bias."
    for learner, second in enumerate([raised(biases), raised(biases), printed("Right.\n"), []]):
        first = raised(f"Not yet: it is not {learner},234. Hint: count.") if learner < 3 else raised("x", "NameError")
        answer = {"answer": raised("x", "IndentationError")} if learner == 3 else {}
        write_graded(tmp_path, f"learner {learner}", **answer, exercise_1=first, exercise_2=second)
    counted = assignments.misconceptions(tmp_path, "02_cnn_build")
    assert counted.values.tolist() == [
        ["exercise-1", "it is not …", 3],
        ["exercise-1", "a syntax error", 1],
        ["exercise-2", "those are only the weights; add the biases", 2],
        ["exercise-2", "points awarded, but no reply from the check", 1],
        ["exercise-2", "right", 1],
    ]
    figure = plots.misconceptions(counted)
    assert [bar.get_width() for bar in figure.axes[0].patches] == [3, 1, 2, 1, 1]
    done = command("misconceptions", tmp_path, "2")
    assert done.exit_code == 0 and done.output.splitlines()[0] == "4 notebooks of 02_cnn_build"
    assert done.output.splitlines()[2].split() == ["exercise-1", "it", "is", "not", "…", "3"]
    assert (tmp_path / "misconceptions-02_cnn_build.png").read_bytes().startswith(b"\x89PNG")
    missing = command("misconceptions", tmp_path, "3")
    assert missing.exit_code == 2 and "has no graded notebooks for 03_pretraining" in missing.output


def test_those_without_points_are_named_with_what_they_handed_in(tmp_path):
    write_graded(tmp_path, "anna", exercise_1=[])
    there = "02_cnn_build/02_cnn_build.ipynb"
    for path in (f"anna/{there}", f"damaged/{there}", f"deep/02_cnn_build/{there}", "renamed/02_cnn_build/mine.ipynb"):
        write_text(tmp_path / "submitted" / path, "{}")
    write_text(tmp_path / "submitted/other/01_data_split/copy.ipynb", "{}")
    (tmp_path / "source" / "01_data_split").mkdir(parents=True)
    with closing(sqlite3.connect(tmp_path / "gradebook.db")) as book, book:
        book.execute("CREATE TABLE student (id TEXT)")
        book.executemany("INSERT INTO student VALUES (?)", [("anna",), ("zoe",)])
    said = assignments.not_graded(tmp_path, "02_cnn_build")
    nothing, lost, out = "nothing handed in", "for nbgrader, move it to", "nbgrader export leaves this learner out"
    assert said == {
        "damaged": f"not graded; nbgrader autograde says why. {out}",
        "deep": f"handed in 02_cnn_build/{there}; {lost} submitted/deep/{there}. {out}",
        "other": f"{nothing}. {out}",
        "renamed": f"handed in 02_cnn_build/mine.ipynb; {lost} submitted/renamed/{there}. {out}",
        "zoe": f"{nothing}. nbgrader export gives 0 points",
    }
    assert f"damaged: {said['damaged']}\n" in command("misconceptions", tmp_path, "2").output


# With nbgrader itself

NEEDS_NBGRADER = pytest.mark.skipif(find_spec("nbgrader") is None and not IN_CI, reason="nbgrader is missing")
LESSON = "01_data_split"  # the fastest lesson
SECONDS = 8  # time limit for an answer in these tests
RIGHT = {
    "exercise-1": "my_tasks = [*range(7)], [7, 8, 9]",
    "exercise-2": "label = np.bincount(everything.train.labels).argmax()\n"
    "my_baseline = label, (everything.test.labels == label).mean()",
    "exercise-3": "def three_parts(number, seed):\n"
    "    print('drawing', file=__import__('sys').stderr)\n"  # which does not cost a point
    "    order = np.random.default_rng(seed).permutation(number)\n"
    "    return np.split(order, [8 * number // 10, 9 * number // 10])",
}
SHARED = "my_tasks = [*range(8)], [7, 8, 9]"  # a class in both tasks
LOOP = "def three_parts(number, seed):\n    while True:\n        pass"
DEAF = "while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass"


def nbgrader(course: Path, *command: str, status: int = 0) -> str:
    """Run an nbgrader command in a course folder; return its output."""
    ran = subprocess.run([sys.executable, "-m", "nbgrader", *command], cwd=course, capture_output=True, text=True)
    assert ran.returncode == status, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def points(course: Path) -> dict[str, dict[str, float | None]]:
    """Return the points in the gradebook, by learner and exercise."""
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as book:
        return {
            sent.student_id: {grade.name: grade.auto_score for grade in sent.notebooks[0].grades}
            for sent in book.assignment_submissions(LESSON)
        }


@pytest.fixture(scope="module")
def handout(course) -> Path:
    """Make the notebook that learners get through nbgrader's exchange folder."""
    nbgrader(course, "generate_assignment", LESSON)
    return course / "release" / LESSON / f"{LESSON}.ipynb"


def hand_in(handout: Path, learner: str, change: Callable = lambda cells: cells, **answers: str) -> Path:
    """Submit the handout with the right answers, some of them replaced, and with changed cells."""
    notebook = copy.deepcopy(nbformat.read(handout, as_version=4))
    for cell in notebook.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id", "")
        if name.endswith("-answer"):
            exercise = name.removesuffix("-answer")
            cell.source = {**RIGHT, **answers}.get(exercise) or cell.source
    notebook.cells = change(notebook.cells)
    path = handout.parents[2] / "submitted" / learner / LESSON / handout.name
    path.parent.mkdir(parents=True)
    nbformat.write(notebook, path)
    return path


def without_a_check(found: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    return [cell for cell in found if cell.metadata.get("nbgrader", {}).get("grade_id") != "exercise-2"]


def says_right(found: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Replace the check's code, so that it always says right."""
    for cell in found:
        if cell.metadata.get("nbgrader", {}).get("grade_id") == "exercise-1":
            cell.source = "print('Right.')"
    return found


@pytest.mark.nbgrader
@NEEDS_NBGRADER
def test_a_handout_has_no_answers_and_no_outputs_and_what_is_to_be_filled_in_stays(handout):
    text = handout.read_text(encoding="utf-8")
    assert not any(words in text for words in ("<summary>Answer", "YOUR CODE HERE", "Clear Outputs"))
    assert not any(cell.outputs for cell in cells(handout) if cell.cell_type == "code")
    assert "my_tasks = ...  # ([classes of the source task], [classes of the target task])" in text
    given = {cell.metadata.nbgrader.grade_id: cell.metadata for cell in graded(handout)}
    assert given["exercise-1"].editable is False and given["exercise-1-answer"].get("editable", True)
    assert not any(given[name].deletable for name in given)


@pytest.fixture(scope="module")
def class_of_many(handout) -> tuple[Path, dict[str, dict[str, float | None]], str]:
    """Grade submissions of all kinds; return the course folder, the points, and nbgrader's output."""
    course = handout.parents[2]
    hand_in(handout, "right")
    wrong = hand_in(handout, "wrong", **{"exercise-1": SHARED, "exercise-2": "my_baseline = 3, 0.5"})
    saved = json.loads(wrong.read_text(encoding="utf-8"))
    saved["metadata"]["widgets"] = {"application/vnd.jupyter.widget-state+json": {"a1": {"model_name": "HBoxModel"}}}
    wrong.write_text(json.dumps(saved), encoding="utf-8")  # with leftovers of a progress bar, as Colab saves them
    hand_in(handout, "unanswered", **dict.fromkeys(RIGHT, ""))
    hand_in(handout, "check deleted", without_a_check, **{"exercise-1": SHARED})
    hand_in(handout, "damaged").write_text('{"cells": [{')
    hand_in(handout, "loop", **{"exercise-1": "while True:\n    pass", "exercise-3": LOOP})
    hand_in(handout, "loop that hears no interrupt", **{"exercise-1": DEAF})
    hand_in(handout, "prints Right", says_right, **{"exercise-1": "print('Right.')"})
    forged = "class checks:\n    tasks = baseline = staticmethod(lambda *_: 'Right.')\nimport os\nos.environ.clear()"
    hand_in(handout, "other checks", **{"exercise-1": forged, "exercise-2": ""})
    hand_in(handout, "zz, after all others")
    config = course / "nbgrader_config.py"
    text = config.read_text(encoding="utf-8")
    for old, new in (("ANSWER, OTHER = 60,", f"ANSWER, OTHER = {SECONDS},"), ("iopub_timeout=30", "iopub_timeout=5")):
        assert old in text
        text = text.replace(old, new)
    config.write_text(text, encoding="utf-8")
    said = nbgrader(course, "autograde", LESSON, status=1)
    return course, points(course), said


@pytest.mark.nbgrader
@NEEDS_NBGRADER
@pytest.mark.parametrize(
    ("learner", "expected"),
    [
        ("right", [1, 1, 1]),
        ("wrong", [0, 0, 1]),
        ("unanswered", [0, 0, 0]),
        ("check deleted", [0, None, 1]),  # must be graded by hand
        ("damaged", [None, None, None]),
        ("loop", [0, 1, 0]),
        ("loop that hears no interrupt", [None, None, None]),
        ("prints Right", [0, 1, 1]),
        ("other checks", [0, 0, 1]),
        ("zz, after all others", [1, 1, 1]),
    ],
)
def test_each_gets_the_right_points_and_nobody_pays_for_another(class_of_many, learner, expected):
    _, found, _ = class_of_many
    assert [found[learner][f"exercise-{number}"] for number in (1, 2, 3)] == expected


@pytest.mark.nbgrader
@NEEDS_NBGRADER
def test_nbgrader_names_those_that_it_could_not_grade_and_the_command_counts_the_others(class_of_many):
    course, _, said = class_of_many
    named = re.findall(r"There was an error processing assignment '\w+' for student '(.+)'", said)
    assert sorted(named) == ["damaged", "loop that hears no interrupt"]
    counted = assignments.misconceptions(course, LESSON)
    assert counted.values.tolist()[:5] == [
        ["exercise-1", "right", 2],
        ["exercise-1", "the code stops with NameError", 2],
        ["exercise-1", "your split puts class 7 in both tasks", 2],
        ["exercise-1", "no answer", 1],
        ["exercise-1", "the code takes too long", 1],
    ]
    assert assignments.not_graded(course, LESSON).keys() == set(named)


@pytest.mark.nbgrader
@NEEDS_NBGRADER
def test_the_feedback_shows_the_words_of_the_check_and_asks_no_other_host(class_of_many):
    course, _, _ = class_of_many
    nbgrader(course, "generate_feedback", LESSON)
    page = course / "feedback" / "wrong" / LESSON / f"{LESSON}.html"
    text = page.read_text(encoding="utf-8")
    assert "Not yet: your split puts class 7 in both tasks." in text
    assert "Traceback (" not in text and "replies.py" not in text
    assert not re.search(r"<(?:script|link|img)[^>]+(?:src|href)=.https?:", text)
