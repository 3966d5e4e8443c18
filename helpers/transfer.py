"""Transfer: freezing, weight fingerprints, cached features, and the strategies.

The vocabulary is that of Yosinski et al. 2014, "How transferable are features in deep neural networks?": features
that are transferred and frozen, or transferred and fine-tuned, against a network trained from scratch and random
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
Row = dict[str, Any]  # a result row: what one training was and what came of it, by column
# Bytes of cached features: a Binder machine has 2 GB in all. Those of the test images outlive the label budgets.
MOST_CACHED, MOST_CACHED_TEST = 300 * 10**6, 50 * 10**6
# Shares of the recipe's learning rate and updates with which `head-first` trains everything, once its head is trained.
GENTLE_RATE, GENTLE_UPDATES = 0.1, 0.5


@dataclass(frozen=True)
class Strategy:
    """Where the features and the head of a target network start from, and whether the features are frozen."""

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
        Strategy(
            "head-first", "pretrained", False, "trained", "frozen to begin with; then everything is trained, gently"
        ),
        Strategy("fine-tuned", "pretrained", False, "fresh", "pretrained features and a new head, trained together"),
        Strategy(
            "random-frozen", "random", True, "fresh", "the control: features never trained at all, a head on them"
        ),
        Strategy(
            "reused-head", "pretrained", True, "reused", "the published variant: the source task's head, trained on"
        ),
    )
}


def named_strategies(names: Sequence[str]) -> list[Strategy]:
    """Return strategies by name, always in the order of `STRATEGIES`, so that all tables and figures have that one.

    Raises ValueError for one that is not known or occurs twice, and for an empty list.
    """
    known = listed(STRATEGIES)
    check_list("strategies", names, f"strategies; allowed are {known}")
    for name in names:
        if name not in STRATEGIES:
            raise ValueError(f"strategies: {name!r} is not known; allowed are {known}")
    if len(set(names)) < len(names):
        raise ValueError(f"strategies: {list(names)} names one twice; give each once")
    return [strategy for name, strategy in STRATEGIES.items() if name in names]


def strategies_for(
    names: Sequence[str], source_classes: int, target_classes: int
) -> tuple[list[Strategy], dict[str, str]]:
    """Return the strategies by name, and for each that cannot apply to these tasks the reason.

    Raises ValueError for what `named_strategies` refuses.
    """
    reason = (
        f"the source task's head has {source_classes} outputs and the target task {target_classes} classes, so it "
        "cannot be reused"
    )
    chosen, fits = named_strategies(names), source_classes == target_classes
    left_out = {strategy.name: reason for strategy in chosen if strategy.head == "reused" and not fits}
    return [strategy for strategy in chosen if strategy.name not in left_out], left_out


def check_frozen_convs(frozen_convs: int) -> None:
    """Raise ValueError unless this many convolutions can be frozen."""
    if type(frozen_convs) is not int or frozen_convs not in range(len(cnn.CONVOLUTIONS) + 1):
        raise ValueError(
            f"frozen_convs: {frozen_convs!r} is not allowed; give 0, 1 or 2, the network has two convolutions"
        )


def freeze(model: "keras.Model", frozen_convs: int = 2) -> None:
    """Make the first `frozen_convs` convolutions untrainable and all other layers trainable.

    A model that is already compiled must be compiled again: what is trained is settled at that moment.
    """
    check_frozen_convs(frozen_convs)
    for layer in model.layers:
        layer.trainable = layer.name not in cnn.CONVOLUTIONS[:frozen_convs]


def copy_weights(giver: "keras.Model", receiver: "keras.Model", head: bool = False) -> None:
    """Copy the weights of the convolutions, and of the head too if asked, between networks of equal layer names."""
    for layer in receiver.layers:
        if layer.get_weights() and (head or layer.name in cnn.CONVOLUTIONS):
            layer.set_weights(giver.get_layer(layer.name).get_weights())


@dataclass(frozen=True)
class Features(Split):
    """Feature maps in place of images, with what they were computed from and the seconds that it took.

    The fingerprints are those of the images and of the convolutions' weights.
    """

    of_images: str
    by_extractor: str
    seconds: float

    def check(self, split: Split, extractor: "keras.Model") -> None:
        """Raise ValueError unless these are the features of these images, by this extractor or this network's."""
        if self.of_images != fingerprint(split):
            raise ValueError(
                f"features: these {len(self)} are of other images than the {len(split)} asked for; extract them again"
            )
        if self.by_extractor != _extractor_fingerprint(extractor):
            raise ValueError(
                "features: another network, or the same one with other weights, computed these; extract them again"
            )


class FeaturesOnDemand(Picked):
    """The feature maps of some images, computed each time when some of them are asked for."""

    def __init__(self, extractor: "keras.Model", images: Images, dtype: str) -> None:
        super().__init__(images, np.arange(len(images)))
        self.extractor, self.dtype, self.shape = extractor, np.dtype(dtype), (len(images), *extractor.output_shape[1:])

    def __getitem__(self, chosen: int | slice | np.ndarray) -> np.ndarray:
        """Return the maps of the images that an index, an array of them of any shape, or a slice chooses."""
        images = super().__getitem__(chosen)
        maps = predict(self.extractor, images.reshape(-1, *self.images.shape[1:]), self.dtype.name)
        return maps.reshape(*images.shape[:-3], *self.shape[1:])


def extract_features(
    extractor: "keras.Model", split: Split, dtype: str = CACHED_TYPE, most: int = MOST_CACHED
) -> Features:
    """Run the frozen extractor over each image once; `(n, height, width, filters)` in half precision by default.

    Half precision takes 254 MB for the training images of MNIST's digits 0-4, single precision twice that. Features
    that would take more than `most` bytes are not kept, but computed whenever they are asked for.
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
    """A network trained on the source task, with its result row, its learning curve, empty if nobody watched, and the
    name of the file that holds its weights.
    """

    model: "keras.Model"
    row: Row
    history: pd.DataFrame
    file: str


@dataclass(frozen=True)
class Repetition:
    """What one seed gives all strategies: the target task as it splits it, and the network pretrained with it."""

    seed: int
    target: Task
    source: SourceNetwork | None = None


class TrainedHead(NamedTuple):
    """A head that `frozen` trained: how, and the weights of its layers by their names."""

    training: Training
    weights: dict[str, list[np.ndarray]]


class Networks:
    """The compiled networks of one comparison, each built when first needed, then reset for every training.

    `whole` trains all layers, `partly_frozen` what `frozen_convs` leaves: with 2 the head alone, on cached features.
    """

    def __init__(self, architecture: Architecture, recipe: Recipe, frozen_convs: int = 2) -> None:
        check_frozen_convs(frozen_convs)
        self.architecture, self.recipe, self.frozen_convs = architecture, recipe, frozen_convs
        self.others: dict[int, Networks] = {}

    def sized(self, classes: int) -> "Networks":
        """Return these networks, or for another number of classes others like them, made once."""
        if classes == self.architecture.classes:
            return self
        architecture = replace(self.architecture, classes=classes)
        return self.others.setdefault(classes, Networks(architecture, self.recipe, self.frozen_convs))

    @property
    def settings(self) -> dict[str, Any]:
        """What a network of these is made from, beside data and seed."""
        return {"architecture": asdict(self.architecture), "recipe": asdict(self.recipe)}

    @cached_property
    def whole(self) -> Trainer:
        """The network with all its layers trained."""
        return Trainer(cnn.build_cnn(self.architecture), self.recipe)

    @cached_property
    def extractor(self) -> "keras.Model":
        """The feature extractor on its own, for caching."""
        return cnn.cut(cnn.build_cnn(self.architecture))[0]

    @cached_property
    def partly_frozen(self) -> Trainer:
        """What freezing leaves to train: with both convolutions frozen the head alone, with fewer the network."""
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
        """Return the features of these training images and of the task's test images, as a strategy freezes them.

        `test` are those of the test images, where another label budget computed them before.
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
        """Train a strategy on some of the target task's training images; return the training and the probabilities
        for the test images.

        `cached` is what `extract` returned for these images, and `head` what `trained_head` returned after `frozen` was
        trained on them. Where they are needed and not given, they are made.
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
            train, test = cached or self.extract(strategy, repetition, images)  # their features
            extraction = train.seconds
        start_weights(trainer.model, strategy, repetition)
        training = trainer.train(train, target_seed(repetition.seed))
        source = repetition.source if strategy.start == "pretrained" else None
        pretraining = source.row["train_seconds"] if source else 0.0
        training = replace(training, pretrain_seconds=pretraining, extract_seconds=extraction)
        return training, predict(trainer.model, test.images)

    def trained_head(self, training: Training) -> TrainedHead:
        """Return the head that this training run, the latest of a strategy that freezes, has left."""
        layers = self.partly_frozen.model.layers
        return TrainedHead(training, {layer.name: layer.get_weights() for layer in layers if layer.weights})

    def _train_head_first(
        self,
        repetition: Repetition,
        images: Split,
        cached: tuple[Features, Features] | None,
        head: TrainedHead | None,
    ) -> tuple[Training, np.ndarray]:
        """Train the head as `frozen` does, then everything, at a low rate.

        A fresh head's first gradients are large and would spoil the features (Kumar et al. 2022, "Fine-tuning can
        distort pretrained features and underperform out-of-distribution").
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
    """Return the seed of what all strategies draw on the target task: weights, order of batches, dropout.

    Pretraining draws by `seed` itself. With the same draws, a "fresh" head would be the very one with which the
    pretrained features were learnt.
    """
    return int(np.random.SeedSequence([seed, 1]).generate_state(1)[0])


def start_weights(model: "keras.Model", strategy: Strategy, repetition: Repetition) -> None:
    """Give a network, or a part of one, the weights that a strategy starts from; `target_seed` draws the fresh ones."""
    cnn.initialize(model, target_seed(repetition.seed))
    if strategy.start == "pretrained":
        if repetition.source is None:
            raise ValueError(f"strategy {strategy.name!r} needs pretrained features; give the repetition its source")
        copy_weights(repetition.source.model, model, head=strategy.head == "reused")


def _extractor_fingerprint(model: "keras.Model") -> str:
    ours = [layer for layer in model.layers if layer.name in cnn.CONVOLUTIONS]
    return _fingerprint(*(ours or model.layers))


def _fingerprint(*layers: "keras.Layer") -> str:
    weights = (weight.tobytes() for layer in layers for weight in layer.get_weights())
    return hashlib.sha256(b"".join(weights)).hexdigest()
