"""Exercises of lesson 01."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from helpers.checks.replies import NOTHING, STILL_THERE, close, exercise


@exercise("each list contains classes of the dataset, and no class may be in both")
def tasks(answer: Any, classes: Sequence[int | str]) -> str | None:
    """Check two lists that divide up all classes: those of the source task, then the three of the target task."""
    try:
        given = [*answer[0], *answer[1]]
        source, target = (list(dict.fromkeys(names)) for names in answer)
    except (LookupError, TypeError, ValueError):
        return "the answer should be two lists of classes, ([...], [...]): the source task's and the target task's"
    if ... in given:
        return NOTHING
    if unknown := [name for name in given if name not in classes]:
        return f"the dataset has no class {_named(unknown[0])}"
    if both := [name for name in source if name in target]:
        return f"your split puts class {_named(both[0])} in both tasks"
    if twice := [name for name in given if given.count(name) > 1]:
        return f"your {'source' if twice[0] in source else 'target'} task lists class {_named(twice[0])} twice"
    if left := [name for name in classes if name not in given]:
        return f"class {_named(left[0])} is in neither task"
    if len(target) != 3:
        swapped = "; the source task comes first" if len(source) == 3 else ""
        return f"the target task should have three classes, but yours has {len(target)}{swapped}"
    return None


@exercise("find the most frequent label of the training images, then see how often the test images have it")
def baseline(answer: Any, training_labels: np.ndarray, test_labels: np.ndarray) -> str | None:
    """Check a pair: the most frequent training label, and the share of test images that have it, between 0 and 1.

    The answer includes the label, because the share alone could be guessed if all classes are equally frequent.
    """
    try:
        label, share = answer
    except (TypeError, ValueError):
        return "the answer should have two parts, (label, share)"
    if label is ... or share is ...:
        return NOTHING
    known, counts = np.unique(training_labels, return_counts=True)
    if label not in known:
        return f"no training image has the label {_named(label)}"
    on_training, right = (np.mean(labels == label) for labels in (training_labels, test_labels))
    tested, test_counts = np.unique(test_labels, return_counts=True)
    most_tested = test_counts.max() / len(test_labels)
    if counts[known == label][0] < counts.max():
        if np.any(tested[test_counts == test_counts.max()] == label):
            return f"{_named(label)} is most frequent among the test images; use the training images instead"
        return f"{counts[known == label][0]:,} training images have the label {_named(label)}; another label has more"
    if close(share, right):
        return None
    if not 0 <= share <= 1:
        return "a share lies between 0 and 1; it is not a percentage or a number of images"
    if close(share, on_training):
        return "that is the label's share of the training images; results are reported on test images"
    if close(share, most_tested):
        return "that is the share of the test images' most frequent label, which is a different one"
    if close(share, 1 / len(tested)):
        return f"that is how often a guess among {len(tested)} classes is right; this label has a different share"
    if round(float(right), 2) == share:
        return "that is rounded too far; give three digits"
    return f"the label is right, but its share of the test images is not {share:.4g}"


@exercise("each image is in exactly one part, and the sizes of the three parts add up to the number of images")
def three_parts(answer: Callable[[int, int], Sequence[np.ndarray]]) -> str | None:
    """Check a function of (number, seed) that draws training, validation and test images: 80, 10 and 10% of them."""
    parts = answer(1000, 0)
    if parts is None:
        return "your function returns nothing"
    parts = [np.asarray(part).tolist() for part in parts]
    if len(parts) != 3:
        return f"your function returns {len(parts)} parts, not three"
    training, validation, test = (set(part) for part in parts)
    if shared := training & test:
        return f"{len(shared)} of 1000 images are in both the training part and the test part"
    if shared := validation & test:
        return f"{len(shared)} of 1000 images are in both the validation part and the test part"
    if training & validation:
        return STILL_THERE
    if (held := training | validation | test) != set(range(1000)):
        return f"your parts contain {len(held & set(range(1000)))} of 1000 images"
    if (sizes := [len(part) for part in parts]) != [800, 100, 100]:
        return f"your parts contain {sizes} of 1000 images; they should contain 800, 100 and 100"
    if test in ({*range(100)}, {*range(900, 1000)}):
        return "your test images are neighbors in the dataset; draw them at random"
    if set(np.asarray(answer(1000, 1)[2]).tolist()) == test:
        return "a different seed draws the same test images"
    return None


def _named(label: int | str) -> str:
    """Write a label as in code, with quotation marks around text, because "7" is not 7."""
    return repr(str(label)) if isinstance(label, str) else str(label)
