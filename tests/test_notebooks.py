"""The lessons as documents. Whether they run and reproduce their outputs is checked by nbval."""

import ast
import base64
import re
from pathlib import Path

import nbformat
import pandas as pd
import papermill
import pytest

ROOT = Path(__file__).resolve().parents[1]
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
REFERENCES = ROOT / "tests" / "reference"
IGNORED = "nbval-ignore-output"


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


STORED = [*LESSONS, *sorted(REFERENCES.glob("*.ipynb")), *sorted((ROOT / "docs").glob("*.ipynb"))]
stored = pytest.mark.parametrize("path", STORED, ids=lambda path: f"{path.parent.name}/{path.stem}")
lessons = pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)


def test_a_parameter_is_the_same_in_all_lessons():
    everywhere: dict[str, set] = {}
    for path in LESSONS:
        for name, parameter in papermill.inspect_notebook(str(path)).items():
            described = (parameter["inferred_type_name"], parameter["default"], parameter["help"])
            assert all(described), f"{name} of {path.stem} lacks a type, a default or a comment"
            everywhere.setdefault(name, set()).add(described)
    differing = {name: found for name, found in everywhere.items() if len(found) > 1}
    assert not differing


@pytest.mark.parametrize("path", LESSONS[4:], ids=lambda p: p.stem)
def test_a_lesson_takes_at_most_twelve_functions_and_classes_from_helpers_besides_plots_and_checks(path):
    nodes = [node for cell in code_cells(path) for node in ast.walk(ast.parse(cell.source))]
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module.startswith("helpers")]
    names = {alias.name for node in froms for alias in node.names if not alias.name.isupper()}
    assert 0 < len(names - {"plots", "checks", "keras", "wording"}) <= 12


@stored
def test_each_cell_that_is_not_compared_is_followed_by_one_that_is(path):
    shown = [cell for cell in code_cells(path) if cell.outputs or IGNORED in tags(cell)]
    for cell, following in zip(shown, [*shown[1:], None], strict=True):
        if IGNORED in tags(cell):
            assert following is not None and IGNORED not in tags(following), cell.source


@stored
def test_stored_outputs_are_clean(path):
    for count, cell in enumerate(code_cells(path), start=1):
        assert cell.execution_count == count
        text = str([{**output, "data": {**output.get("data", {}), "image/png": None}} for output in cell.outputs])
        assert not re.search(r"oneDNN|absl::|Traceback|widget-view", text)
        assert not re.search(r"(?<![\w.])/(?:home|root|tmp|usr|opt|Users|work)/", text)
        assert not any(output.output_type == "error" or output.get("name") == "stderr" for output in cell.outputs)


@lessons
def test_reference_holds_the_lesson_itself(path):
    reference = [cell for cell in read(REFERENCES / path.name).cells if "injected-parameters" not in tags(cell)]
    assert [cell.source for cell in reference] == [cell.source for cell in read(path).cells]
    assert [cell.metadata for cell in reference] == [cell.metadata for cell in read(path).cells]


@lessons
def test_a_question_has_three_options_that_unfold_and_one_of_them_is_right(path):
    prose = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    for question in prose.split("**Question.**")[1:]:
        options = re.match(r"(?s).+?((<details>.+?\n\n</details>\s*)+)", question)[1]
        assert len(re.findall(r"<details><summary>.+</summary>\n\n", options)) == 3, question
        assert len(re.findall(r"</summary>\n\nYes\b", options)) == 1, question


def test_the_rows_beside_lesson_05_are_those_of_its_outputs():
    rows = pd.read_csv(ROOT / "docs" / "study" / "trainings.csv", keep_default_na=False)
    rows = rows[(rows["question"] == "seeds") & (rows["task"] == "target") & (rows["seed"] < 3)]
    table, budgets = shown(5, "table.reindex("), ["10", "50", "all"]
    accuracies = 100 * (1 - rows["errors"] / rows["images"])
    means = accuracies.groupby([rows["strategy"], rows["labels_per_class"]]).mean()
    for strategy, of_strategy in means.unstack()[budgets].iterrows():
        assert numbers(table, f"{strategy} ")[::2] == [round(mean, 2) for mean in of_strategy]


def test_the_figure_of_the_first_page_is_that_of_the_results():
    (figure,) = [cell.outputs[-1] for cell in code_cells(ROOT / "docs" / "results.ipynb") if "key-figure" in tags(cell)]
    assert (ROOT / "notebooks" / "result.png").read_bytes() == base64.b64decode(figure.data["image/png"])


def test_photos_are_on_the_page_and_their_photographers_are_named_below_them():
    showing = [
        cell for cell in code_cells(LESSONS[6]) if re.search(r"sample_images|maps_by_depth|plots\.photos", cell.source)
    ]
    assert len(showing) == 4
    for cell in showing:
        *_, figure, credit = cell.outputs
        assert "image/png" in figure.data and "hotos by " in credit.text and "CC BY 2.0" in credit.text


def shown(lesson: int, source: str) -> str:
    """Return the output of the only cell in a lesson on MNIST whose source contains this text."""
    (cell,) = [cell for cell in code_cells(LESSONS[lesson]) if source in cell.source]
    return "\n".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs)


def numbers(text: str, start: str) -> list[float]:
    """Return the numbers in the first line that begins with this text."""
    line = re.search(rf"(?m)^ *{re.escape(start)}(.*)$", text)
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", line[1])]


def test_lesson_03_shows_the_published_failure_and_repairs_it():
    table = shown(3, "save_results(folder")
    *_, slow_errors, slow = numbers(table, "0  5 6 7 8 9  adadelta")
    *_, errors, repaired = numbers(table, "1  5 6 7 8 9  adadelta")
    assert 0.5 <= slow <= 0.85  # published: 64%
    assert repaired >= 0.95 and 2 * errors < slow_errors


def test_lesson_04_shows_that_an_untrained_head_is_wrong_and_a_trained_one_right():
    for head in ("frozen", "reused-head"):
        before, _, after = numbers(shown(4, '"right before training"'), f"{head} ")
        assert before < 0.6 and after >= 0.9


def test_lesson_04_shows_what_the_features_know_and_what_fine_tuning_forgets():
    told = shown(4, "neighbors show")
    by = [numbers(told, f"by {name},")[0] for name in ("pixels", "random features", "pretrained features")]
    assert by == sorted(by) and re.findall(r"points, (.+)", told) == ["more", "more"]
    _, _, still, _, moved, _ = numbers(shown(4, '"conv2 moved by"'), "fine-tuned ")
    assert still > 95 and moved > 30
    assert "exactly as many as before, 3 times out of 3" in shown(4, "as_before =")


def test_lesson_05_shows_that_all_networks_know_their_training_images_and_pretrained_features_more():
    table = shown(5, "percent.map(")
    ends = table.rpartition("strategy")[2]
    known = {name: numbers(ends, f"{name} ") for name in ("scratch", "frozen", "random-frozen")}
    assert all(training > 99 and new < 97 for training, new in known.values())
    assert known["frozen"][1] > max(known["scratch"][1], known["random-frozen"][1])
    assert re.search(r"frozen / random-frozen: .+, fewer", table), "as the text below says"


def test_lesson_05_shows_where_transfer_helps_and_where_it_does_not():
    errors = {
        name: [100 - accuracy for accuracy in numbers(shown(5, "table.reindex("), f"{name} ")[::2]]
        for name in ("scratch", "frozen", "random-frozen")
    }
    _, middle, most = (dict(zip(errors, at, strict=True)) for at in zip(*errors.values(), strict=True))
    assert middle["frozen"] <= 0.8 * middle["scratch"]
    assert 0.5 * most["scratch"] < most["frozen"] <= 0.5 * most["random-frozen"]
    faster = shown(5, "published_claim(summary)")
    assert numbers(faster, "with pretraining")[0] < numbers(faster, "on the target task")[0]


def test_lesson_06_shows_what_the_range_the_depth_and_the_training_of_mobilenet_are_worth():
    def ratio(source: str, line: str) -> list[float]:
        """Return the accuracy in percent and the error ratio, each with the ends of its interval."""
        found = re.search(rf"(?m)^.*\b{re.escape(line)} +(.*)$", shown(6, source).replace("%", ""))
        return [float(number) for number in re.findall(r"\d+\.\d+", found[1])]

    assert ratio('table(rows, "-1 to 1")', "0 to 255")[4] > 1
    assert ratio('table(on_photos, "scratch")', "frozen")[5] < 1
    lines = shown(6, 'table(on_photos, "scratch")').splitlines()
    frozen = [re.findall(r"(\d+\.\d)%", line)[0] for line in lines if re.search(r"(?<!-)frozen ", line)]
    assert [float(accuracy) >= least for accuracy, least in zip(frozen, (72, 80), strict=True)] == [True, True]


def test_lesson_07_quotes_the_harm_that_it_shows():
    ratio, ends = re.search(r"mobilenet 13 .* (\d\.\d\d) \((.+?)\) +worse", shown(7, "table(pair)")).groups()
    prose = "\n".join(cell.source for cell in read(LESSONS[7]).cells if cell.cell_type == "markdown")
    assert f"make {ratio} times as many errors" in prose and f"({ends})" in prose
