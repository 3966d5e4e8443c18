"""Starts for your own images: reading and splitting them, what each start sees, and comparing starts."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from refresh_outputs import atlas_table
from refusals import refused

from helpers import starts
from helpers.choice import RULE
from helpers.images import Split
from helpers.statistics import Finding
from helpers.transfer import STRATEGIES


def draw(folder, **counts):
    """Make gray images, with a given number per class."""
    for shade, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.random.default_rng([shade, number]).integers(100 * shade, 100 * shade + 99, (40, 40), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return str(folder)


@pytest.fixture(scope="module")
def both(digits):
    return starts.tasks_by_seed(digits, [5, 6, 7, 8, 9], [0, 1, 2], [0, 1])


@pytest.fixture(scope="module")
def compiled(both, tmp_path_factory):
    """Return the starts for three digits, and the folder that they save results in."""
    folder = tmp_path_factory.mktemp("starts")
    return starts.Starts(folder, *both), folder


# Your own images


def test_a_folder_gives_each_seed_all_its_training_images_and_photos_without_test_photos_are_split(digits, tmp_path):
    mine = starts.load_images(draw(tmp_path / "mine", dark=10, light=6), 32)
    for images, train, test in ((mine, [8, 5], [2, 1]), (starts.load_images("flowers", 32), [40] * 5, [20] * 5)):
        _, targets = starts.tasks_by_seed(digits, [5, 6], [0, 1], [0, 1], images)
        for target in targets.values():
            assert [np.bincount(part.labels).tolist() for part in (target.train, target.test)] == [train, test]
            assert target.classes == images.classes and len(target.validation) == 0
        same = np.array_equal(targets[0].test.images[:], targets[1].test.images[:])
        assert same == (images is mine)


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        ({"dark": 10}, "mine has only the class dark; two or more are needed"),
        ({"dark": 10, "light": 2}, "mine has fewer than 2 training images of class light; add some"),
        ({"dark": 10, "light": 1}, "mine has fewer than 2 training images of class light; add some"),
    ],
)
def test_too_few_images_are_refused_by_class(tmp_path, counts, says):
    with refused("my_images: ", says):
        starts.load_images(draw(tmp_path / "mine", **counts), 32)


def test_a_budget_larger_than_a_class_takes_all_and_one_label_is_refused(both):
    _, targets = both
    smallest = min(np.bincount(target.train.labels).min() for target in targets.values())
    assert starts.label_budget(int(smallest), targets) == smallest
    assert starts.label_budget(int(smallest) + 1, targets) == "all"
    for labels in (1, 0, 2.5, True):
        with refused(f"labels: {labels!r} is too few", "at least two per class"):
            starts.label_budget(labels, targets)


# What a start sees


def test_images_are_resized_and_made_gray_as_pillow_does_or_given_three_equal_channels():
    color = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    split = Split(color, np.zeros(3, np.int32))
    gray = starts.fitted(split, (16, 16, 1)).images
    expected = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in color])
    assert np.abs(gray[..., 0].astype(int) - expected).max() <= 1
    small = starts.fitted(Split(gray, split.labels), (8, 8, 3)).images
    assert small.shape == (3, 8, 8, 3) and (small == small[..., :1]).all()
    assert starts.fitted(split, (16, 16, 3)) is split


def test_cheap_tests_see_the_labeled_images_and_each_start_its_own_features(compiled, both):
    own, _ = compiled
    shapes = {"pixels": (64,), "frozen": (2, 2, 32), "mobilenet 6": (2, 2, 128), "mobilenet 13": (1, 1, 256)}
    for name, shape in shapes.items():
        seen = own.features(name, 4, 0)
        assert seen.images.shape == (12, *shape)
        assert np.bincount(seen.labels).tolist() == [4, 4, 4]
    labeled = {image.tobytes() for image in both[1][0].train.images[:]}
    pixels = np.rint(255 * own.features("pixels", 4, 0).images).astype(np.uint8)
    assert all(image.tobytes() in labeled for image in pixels)
    first, other = (own.sources[seed].model.get_weights() for seed in (0, 1))
    assert not np.array_equal(first[0], other[0])


def test_every_start_gives_one_row_in_the_order_asked_for_and_own_networks_are_kept(compiled):
    own, folder = compiled
    names = ["mobilenet 13", "pixels", "head-first", "scratch", "mobilenet 6", "frozen"]
    rows = own.train(names, 4, 0)
    assert [row["strategy"] for row in rows] == names
    assert {(row["task"], row["labels_per_class"], row["seed"]) for row in rows} == {("target", 4, 0)}
    assert all(row["test_accuracy"] > 0.5 for row in rows)
    kept = len(list(folder.glob("*")))
    again = own.train(["scratch", "frozen"], 4, 0)
    assert [row["train_seconds"] for row in again] == [rows[3]["train_seconds"], rows[5]["train_seconds"]]
    assert len(list(folder.glob("*"))) == kept


def test_the_rule_can_choose_among_the_starts_of_the_lesson():
    assert RULE.start in {"pixels", "frozen", *starts.CUTS}
    assert {RULE.few, RULE.then} <= STRATEGIES.keys()


# Error ratios, and the atlas


def test_error_ratios_are_paired_by_task_and_seed_and_starts_without_a_source_count():
    rows = [
        (target, seed, strategy, source, errors)
        for seed in range(3)
        for target, strategy, source, errors in (
            ("a", "scratch", np.nan, 10 + 10 * seed),
            ("a", "pixels", np.nan, 20.5 + 20 * seed),
            ("a", "frozen", "b", 4.75 + 5 * seed + 0.1 * (seed == 2)),
            ("b", "scratch", np.nan, 7),
            ("b", "pixels", np.nan, 7),
        )
    ]
    table = pd.DataFrame(rows, columns=["target", "seed", "strategy", "source", "errors"])
    found = starts.error_ratios(table.assign(labels_per_class="10")).set_index(["strategy", "target"])
    assert list(found.index) == [("pixels", "a"), ("frozen", "a"), ("pixels", "b")]
    assert found["error_ratio"].tolist() == pytest.approx([2, 0.5, 1], abs=0.01)
    assert found["finding"].tolist() == [Finding.CANNOT_TELL, Finding.BETTER, Finding.CANNOT_TELL]
    assert found["source"].tolist()[1] == "b" and found["source"].isna().tolist() == [True, False, True]
    assert (found["seeds"] == 3).all()


def test_the_lessons_table_of_the_atlas_is_made_from_the_stored_rows():
    assert starts.ATLAS.read_text(encoding="utf-8") == atlas_table().to_csv(index=False)
