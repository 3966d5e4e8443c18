"""Transfer: freezing, weight fingerprints, cached features, and the strategies.

The vocabulary follows Yosinski et al. 2014, "How transferable are features in deep neural networks?": features are
transferred and frozen, or transferred and fine-tuned, and compared with a network trained from scratch and with random
frozen features.
"""

import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from helpers import cnn
from helpers.cnn import Architecture
from helpers.images import Images, Picked, Split, fingerprint
from helpers.messages import check_list, listed
from helpers.tasks import Task
from helpers.training import Recipe, Trainer, Training, predict

if TYPE_CHECKING:
    import keras

CACHED_TYPE = "float16"  # of features; the head computes in single precision anyway
Row = dict[str, Any]  # a result row: settings and results of one training run, by column
# Limits on cached features, in bytes: a Binder machine has only 2 GB. Test features are kept for all label budgets.
MOST_CACHED, MOST_CACHED_TEST = 300 * 10**6, 50 * 10**6
# Shares of the recipe's learning rate and updates that `head-first` uses to train everything, after the head.
GENTLE_RATE, GENTLE_UPDATES = 0.1, 0.5


@dataclass(frozen=True)
class Strategy:
    """The start of a target network's features and head, and whether the features are frozen."""

    name: str
    start: str  # of the features: "random" or "pretrained"
    freezes: bool
    head: str  # "fresh", "reused" from the source task, or "trained" before the features are
    meaning: str


STRATEGIES = {
    strategy.name: strategy
    for strategy in (
        Strategy("scratch", "random", False, "fresh", "an ordinary network, trained on the target task alone"),
        Strategy(
            "frozen", "pretrained", True, "fresh", "pretrained features kept as they are, a new head trained on them"
        ),
        Strategy("head-first", "pretrained", False, "trained", "frozen at first; then everything is trained, gently"),
        Strategy("fine-tuned", "pretrained", False, "fresh", "pretrained features and a new head, trained together"),
        Strategy("random-frozen", "random", True, "fresh", "the control: a head on features that were never trained"),
        Strategy(
            "reused-head",
            "pretrained",
            True,
            "reused",
            "the published variant: the source task's head, trained further",
        ),
    )
}


def named_strategies(names: Sequence[str]) -> list[Strategy]:
    """Return strategies by name, in the order of `STRATEGIES`, which all tables and figures share.

    Raises ValueError for an unknown or repeated name, and for an empty list.
    """
    known = listed(STRATEGIES)
    check_list("strategies", names, f"strategies; allowed: {known}")
    for name in names:
        if name not in STRATEGIES:
            raise ValueError(f"strategies: {name!r} is not known; allowed: {known}")
    if len(set(names)) < len(names):
        raise ValueError(f"strategies: {list(names)} names a strategy twice; list each once")
    return [strategy for name, strategy in STRATEGIES.items() if name in names]


def strategies_for(
    names: Sequence[str], source_classes: int, target_classes: int
) -> tuple[list[Strategy], dict[str, str]]:
    """Return the named strategies that fit these tasks, and the reason for omitting each of the others.

    Raises ValueError for anything that `named_strategies` refuses.
    """
    reason = (
        f"the source task's head has {source_classes} outputs and the target task {target_classes} classes, so it "
        "cannot be reused"
    )
    chosen, fits = named_strategies(names), source_classes == target_classes
    left_out = {strategy.name: reason for strategy in chosen if strategy.head == "reused" and not fits}
    return [strategy for strategy in chosen if strategy.name not in left_out], left_out


def check_frozen_convs(frozen_convs: int) -> None:
    """Raise ValueError unless this number of convolutions can be frozen."""
    if type(frozen_convs) is not int or frozen_convs not in range(len(cnn.CONVOLUTIONS) + 1):
        raise ValueError(
            f"frozen_convs: {frozen_convs!r} is not allowed; give 0, 1 or 2, because the network has two convolutions"
        )


def freeze(model: "keras.Model", frozen_convs: int = 2) -> None:
    """Make the first `frozen_convs` convolutions untrainable and all other layers trainable.

    A model that is already compiled must be compiled again, because compiling fixes the trainable weights.
    """
    check_frozen_convs(frozen_convs)
    for layer in model.layers:
        layer.trainable = layer.name not in cnn.CONVOLUTIONS[:frozen_convs]


def copy_weights(giver: "keras.Model", receiver: "keras.Model", head: bool = False) -> None:
    """Copy the weights of the convolutions, and optionally of the head, between networks with the same layer names."""
    for layer in receiver.layers:
        if layer.get_weights() and (head or layer.name in cnn.CONVOLUTIONS):
            layer.set_weights(giver.get_layer(layer.name).get_weights())


@dataclass(frozen=True)
class Features(Split):
    """Feature maps instead of images, with their origin and the seconds it took to compute them.

    The origin consists of two fingerprints: that of the images and that of the convolutions' weights.
    """

    of_images: str
    by_extractor: str
    seconds: float

    def check(self, split: Split, extractor: "keras.Model") -> None:
        """Raise ValueError unless these features were computed from these images with this model's convolutions."""
        if self.of_images != fingerprint(split):
            raise ValueError(
                f"features: these {len(self)} were not computed from the {len(split)} images given; extract them again"
            )
        if self.by_extractor != _extractor_fingerprint(extractor):
            raise ValueError(
                "features: these were computed by a different network, or with different weights; extract them again"
            )


class FeaturesOnDemand(Picked):
    """The feature maps of some images, recomputed at each access."""

    def __init__(self, extractor: "keras.Model", images: Images, dtype: str) -> None:
        super().__init__(images, np.arange(len(images)))
        self.extractor, self.dtype, self.shape = extractor, np.dtype(dtype), (len(images), *extractor.output_shape[1:])

    def __getitem__(self, chosen: int | slice | np.ndarray) -> np.ndarray:
        """Return the maps of the images chosen by an index, a slice, or an array of indices of any shape."""
        images = super().__getitem__(chosen)
        maps = predict(self.extractor, images.reshape(-1, *self.images.shape[1:]), self.dtype.name)
        return maps.reshape(*images.shape[:-3], *self.shape[1:])


def extract_features(
    extractor: "keras.Model", split: Split, dtype: str = CACHED_TYPE, most: int = MOST_CACHED
) -> Features:
    """Run the frozen extractor over each image once; return `(n, height, width, filters)`, by default in half
    precision.

    Half precision takes 254 MB for the training images of MNIST's digits 0-4, single precision twice that. Features
    larger than `most` bytes are not kept, but recomputed whenever they are needed.
    """
    start = time.perf_counter()
    maps: Images = FeaturesOnDemand(extractor, split.images, dtype)
    if math.prod(maps.shape) * maps.dtype.itemsize <= most:
        maps = predict(extractor, split.images, dtype)
    return Features(
        maps, split.labels, fingerprint(split), _extractor_fingerprint(extractor), time.perf_counter() - start
    )


@dataclass(frozen=True)
class SourceNetwork:
    """A network trained on the source task, with its result row, its learning curve (empty unless requested), and its
    weights file's name.
    """

    model: "keras.Model"
    row: Row
    history: pd.DataFrame
    file: str


@dataclass(frozen=True)
class Repetition:
    """Everything that depends on a seed: its split of the target task, and its pretrained network."""

    seed: int
    target: Task
    source: SourceNetwork | None = None


class TrainedHead(NamedTuple):
    """A head trained by `frozen`: the record of its training, and its weights by layer name."""

    training: Training
    weights: dict[str, list[np.ndarray]]


class Networks:
    """The compiled networks of one comparison, each built when first needed, then reset for every training run.

    `whole` trains all layers, `partly_frozen` only the unfrozen ones: just the head if both convolutions are frozen.
    """

    def __init__(self, architecture: Architecture, recipe: Recipe, frozen_convs: int = 2) -> None:
        check_frozen_convs(frozen_convs)
        self.architecture, self.recipe, self.frozen_convs = architecture, recipe, frozen_convs
        self.others: dict[int, Networks] = {}

    def sized(self, classes: int) -> "Networks":
        """Return networks for this number of classes: these, or similar ones that are created only once."""
        if classes == self.architecture.classes:
            return self
        architecture = replace(self.architecture, classes=classes)
        return self.others.setdefault(classes, Networks(architecture, self.recipe, self.frozen_convs))

    @property
    def settings(self) -> dict[str, Any]:
        """Return the provenance that these networks share, apart from data and seed."""
        return {"architecture": asdict(self.architecture), "recipe": asdict(self.recipe)}

    @cached_property
    def whole(self) -> Trainer:
        """The network with all its layers trainable."""
        return Trainer(cnn.build_cnn(self.architecture), self.recipe)

    @cached_property
    def extractor(self) -> "keras.Model":
        """The feature extractor alone, for caching."""
        return cnn.cut(cnn.build_cnn(self.architecture))[0]

    @cached_property
    def partly_frozen(self) -> Trainer:
        """The part to train after freezing: the head if both convolutions are frozen, otherwise the whole network."""
        model = cnn.build_cnn(self.architecture)
        freeze(model, self.frozen_convs)
        return Trainer(cnn.cut(model)[1] if self.caches_features else model, self.recipe)

    @property
    def caches_features(self) -> bool:
        """Whether the frozen part is the whole feature extractor, so that its output can be cached."""
        return self.frozen_convs == len(cnn.CONVOLUTIONS)

    def extract(
        self, strategy: Strategy, repetition: Repetition, images: Split, test: Features | None = None
    ) -> tuple[Features, Features]:
        """Return a strategy's frozen features for these training images and for the task's test images.

        `test` contains the features of the test images, if an earlier label budget computed them.
        """
        start_weights(self.extractor, strategy, repetition)
        train = extract_features(self.extractor, images, most=MOST_CACHED)
        return train, test or extract_features(self.extractor, repetition.target.test, most=MOST_CACHED_TEST)

    def train(
        self,
        strategy: Strategy,
        repetition: Repetition,
        images: Split,
        cached: tuple[Features, Features] | None = None,
        head: TrainedHead | None = None,
    ) -> tuple[Training, np.ndarray]:
        """Train a strategy on some of the target task's training images; return the training record and the test
        probabilities.

        `cached` is the result of `extract` for these images, `head` the result of `trained_head` after training
        `frozen` on them. Whatever is missing is computed.
        """
        if strategy.head == "trained":
            return self._train_head_first(repetition, images, cached, head)
        trainer = self.partly_frozen if strategy.freezes else self.whole
        train, test, extraction = images, repetition.target.test, 0.0
        if strategy.freezes and self.caches_features:
            if cached:
                start_weights(self.extractor, strategy, repetition)
                cached[0].check(images, self.extractor)
                cached[1].check(test, self.extractor)
            train, test = cached or self.extract(strategy, repetition, images)  # features, from here on
            extraction = train.seconds
        start_weights(trainer.model, strategy, repetition)
        training = trainer.train(train, target_seed(repetition.seed))
        source = repetition.source if strategy.start == "pretrained" else None
        pretraining = source.row["train_seconds"] if source else 0.0
        training = replace(training, pretrain_seconds=pretraining, extract_seconds=extraction)
        return training, predict(trainer.model, test.images)

    def trained_head(self, training: Training) -> TrainedHead:
        """Return the head from this training run, which must be the latest one of a strategy that freezes features."""
        layers = self.partly_frozen.model.layers
        return TrainedHead(training, {layer.name: layer.get_weights() for layer in layers if layer.weights})

    def _train_head_first(
        self,
        repetition: Repetition,
        images: Split,
        cached: tuple[Features, Features] | None,
        head: TrainedHead | None,
    ) -> tuple[Training, np.ndarray]:
        """Train the head as `frozen` does, then everything at a low learning rate.

        While a fresh head is being learned, the features below it change and are distorted (Kumar et al. 2022,
        "Fine-tuning can distort pretrained features and underperform out-of-distribution").
        """
        if head is None:
            head = self.trained_head(self.train(STRATEGIES["frozen"], repetition, images, cached)[0])
        start_weights(self.whole.model, STRATEGIES["head-first"], repetition)
        for name, weights in head.weights.items():
            self.whole.model.get_layer(name).set_weights(weights)
        gentle = replace(
            self.recipe, learning_rate=GENTLE_RATE * self.recipe.learning_rate, times=GENTLE_UPDATES * self.recipe.times
        )
        then = self.whole.train(images, target_seed(repetition.seed), recipe=gentle)
        training = replace(
            head.training,
            losses=np.concatenate([head.training.losses, then.losses]),
            updates=head.training.updates + then.updates,
            seconds=head.training.seconds + then.seconds,
        )
        return training, predict(self.whole.model, repetition.target.test.images)


def target_seed(seed: int) -> int:
    """Return the seed for everything that strategies draw on the target task: weights, order of batches, dropout.

    Pretraining uses `seed` itself. If this seed were the same, a "fresh" head would start from the same weights as the
    head with which the pretrained features were learned.
    """
    return int(np.random.SeedSequence([seed, 1]).generate_state(1)[0])


def start_weights(model: "keras.Model", strategy: Strategy, repetition: Repetition) -> None:
    """Give a network, or part of one, a strategy's starting weights; fresh weights are drawn with `target_seed`."""
    cnn.initialize(model, target_seed(repetition.seed))
    if strategy.start == "pretrained":
        if repetition.source is None:
            raise ValueError(f"strategy {strategy.name!r} needs pretrained features; pass a repetition with a source")
        copy_weights(repetition.source.model, model, head=strategy.head == "reused")


def _extractor_fingerprint(model: "keras.Model") -> str:
    ours = [layer for layer in model.layers if layer.name in cnn.CONVOLUTIONS]
    weights = (weight.tobytes() for layer in ours or model.layers for weight in layer.get_weights())
    return hashlib.sha256(b"".join(weights)).hexdigest()
