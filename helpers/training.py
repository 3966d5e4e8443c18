"""Training, counted in optimizer updates: a recipe says how, a `Trainer` does it, and `evaluate` measures the result.

A training run is one seeded stream of shuffled indices, cut into batches of one size. `fit` would do the same, but with
an overhead of about 25 ms per epoch, which would dominate when an epoch is a single step.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from helpers.images import Images, Split
from helpers.messages import check_counts, listed

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

OPTIMIZERS = {"adadelta": "Adadelta", "adam": "Adam", "rmsprop": "RMSprop", "sgd": "SGD"}
SCHEDULES = ("constant", "cosine")
VALIDATION_POINTS = 5
IMAGES_PER_CALL, BYTES_PER_CALL = 512, 10**7  # per call of the compiled graph: a call costs 2 ms, images cost memory
WARM_UP = 0.1  # share of the updates during which a cosine schedule rises from zero


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: optimizer, learning rate and its schedule, batch size, and number of updates.

    `times` scales the length of the training run: 0.5 makes half as many updates as the epochs ask for.
    """

    optimizer: str = "adadelta"
    learning_rate: float = 1.0
    batch_size: int = 128
    epochs: int = 5
    min_updates: int = 300
    schedule: str = "constant"
    times: float = 1.0

    def __post_init__(self) -> None:
        """Raise ValueError for an invalid parameter, naming it, its value, and the allowed values."""
        for name, allowed in (("optimizer", tuple(OPTIMIZERS)), ("schedule", SCHEDULES)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not known; allowed: {listed(allowed)}")
        check_counts(batch_size=self.batch_size, epochs=self.epochs, min_updates=self.min_updates)
        for name in ("learning_rate", "times"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ValueError(f"{name}: {value!r} is not allowed; give a number above 0")

    def updates(self, images: int) -> int:
        """Count the updates for a training set of `images`: as many as the epochs need, but at least `min_updates`,
        scaled by `times`.
        """
        return math.ceil(self.times * max(self.epochs * math.ceil(images / self.batch_size), self.min_updates))

    def rate(self, update: int, updates: int) -> float:
        """Return the learning rate of one update, counted from 0.

        `cosine` rises linearly during the first tenth, then falls to zero along half a cosine (Loshchilov and Hutter
        2017).
        """
        if self.schedule == "constant":
            return self.learning_rate
        rising = max(1, round(WARM_UP * updates))
        if update < rising:
            return self.learning_rate * (update + 1) / rising
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (update - rising) / max(1, updates - rising)))


RECIPES = {
    "published": Recipe(),
    "fast": Recipe(optimizer="adam", learning_rate=5e-3, batch_size=48, epochs=1, min_updates=200, schedule="cosine"),
}


def named_recipe(name: str) -> Recipe:
    """Return the recipe with this name; raise ValueError if there is none."""
    if name not in RECIPES:
        raise ValueError(f"recipe: {name!r} is not known; allowed: {listed(RECIPES)}")
    return RECIPES[name]


@dataclass(frozen=True)
class Training:
    """The record of a training run, apart from the trained weights.

    `history` has one row per evaluation on the validation split: update, epoch, loss and accuracy (on the batches since
    the previous evaluation), validation_loss, validation_accuracy. `losses` has each batch's loss. `seconds` covers the
    updates alone; pretraining and feature extraction are timed separately. `threads` is the number of TensorFlow's
    threads, `at_once` the number of networks trained in parallel.
    """

    recipe: Recipe
    history: pd.DataFrame
    losses: np.ndarray
    updates: int
    seconds: float
    pretrain_seconds: float = 0.0
    extract_seconds: float = 0.0
    threads: int = 1
    at_once: int = 1


@dataclass(frozen=True)
class Bench:
    """The number of networks that train `at_once`, each in its own thread, and the event that stops them all."""

    at_once: int = 1
    stop: Event = field(default_factory=Event)

    def check(self) -> None:
        """Raise InterruptedError once the event is set; call this between compiled functions, because there is no
        other way to stop a thread.
        """
        if self.stop.is_set():
            raise InterruptedError("another training run failed, or the user interrupted the training")


BENCH = ContextVar("bench", default=Bench())  # noqa: B039, each thread has its own


class Trainer:
    """A model compiled once for a recipe, then trained with a fresh optimizer any number of times.

    Building and tracing take longer than a small training run, so they happen once, here. After changing `trainable`,
    make a new Trainer, just as you would compile again, because compiling fixes the trainable weights; otherwise
    `train` raises an error.
    """

    def __init__(self, model: "keras.Model", recipe: Recipe) -> None:
        from helpers.backend import keras

        self.model, self.recipe = model, recipe
        self.optimizer = getattr(keras.optimizers, OPTIMIZERS[recipe.optimizer])(recipe.learning_rate)
        model.compile(self.optimizer, loss="sparse_categorical_crossentropy")
        self.optimizer.build(model.trainable_variables)  # otherwise, tracing would create variables and run twice
        self._trained = [variable.path for variable in model.trainable_variables]
        self._update = self._compiled()
        weights = model.get_weights()  # a blank batch follows, so that no timed training run includes tracing
        blank = np.zeros((1, 2, *model.input_shape[1:]), model.inputs[0].dtype)
        self._update(blank, np.zeros((1, 2), np.int32), np.zeros(1, np.float32))
        model.set_weights(weights)

    def _compiled(self) -> Callable[[np.ndarray, np.ndarray, np.ndarray], "tf.Tensor"]:
        """Return a function that makes several updates in one call. It takes batches `(updates, size, ...)`, their
        labels and learning rates, and returns the loss and accuracy of each batch, `(updates, 2)`.
        """
        import tensorflow as tf

        model, optimizer, variables = self.model, self.optimizer, self.model.trainable_variables

        def update(batch: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
            images, labels, rate = batch
            optimizer.learning_rate.assign(rate)
            with tf.GradientTape() as tape:
                probabilities = model(images, training=True)
                loss = model.compute_loss(y=labels, y_pred=probabilities)
            optimizer.apply(tape.gradient(loss, variables), variables)
            hits = tf.equal(tf.argmax(probabilities, axis=1, output_type=labels.dtype), labels)
            return tf.stack([loss, tf.reduce_mean(tf.cast(hits, loss.dtype))])

        signature = [
            tf.TensorSpec((None, None, *model.input_shape[1:]), model.inputs[0].dtype),
            tf.TensorSpec((None, None), tf.int32),
            tf.TensorSpec((None,), tf.float32),
        ]
        compiled: Callable[[np.ndarray, np.ndarray, np.ndarray], tf.Tensor] = tf.function(
            lambda *batches: tf.map_fn(update, batches, fn_output_signature=tf.float32, parallel_iterations=1),
            input_signature=signature,
            autograph=False,  # there is no Python control flow to convert
        )
        return compiled

    def train(
        self,
        split: Split,
        seed: int = 0,
        validation: Split | None = None,
        description: str | None = None,
        recipe: Recipe | None = None,
    ) -> Training:
        """Train the model from its current weights; the seed fixes the order of the images and the dropout.

        A different `recipe` may change the learning rate and the length, but not the compiled optimizer.

        With `validation`, the model is evaluated at up to five points, outside the timed part. With `description`, a
        progress bar appears under that name.
        """
        from helpers.backend import threads

        if [variable.path for variable in self.model.trainable_variables] != self._trained:
            raise RuntimeError("trainable was changed after the model was compiled; make a new Trainer")
        self._reset(seed)
        recipe, bench = recipe or self.recipe, BENCH.get()
        updates = recipe.updates(len(split))
        rates = np.array([recipe.rate(update, updates) for update in range(updates)], np.float32)
        looks = np.linspace(0, updates, VALIDATION_POINTS + 1).round().astype(int)[1:]
        image = math.prod(self.model.input_shape[1:]) * np.dtype(self.model.inputs[0].dtype).itemsize
        per_call = max(1, min(IMAGES_PER_CALL, BYTES_PER_CALL // image) // recipe.batch_size)
        stops = sorted({*looks, *range(0, updates, per_call)} - {0})
        batches, logs, seconds, done = batch_indices(len(split), recipe, seed), np.empty((0, 2)), 0.0, 0
        rows: list[tuple[int | float, ...]] = []
        with tqdm(total=updates, desc=description, disable=description is None, leave=False) as bar:
            for stop in stops:
                bench.check()
                start = time.perf_counter()
                indices = np.stack([next(batches) for _ in range(done, stop)])
                images = _batch(self.model, split.images, indices)
                log = self._update(images, split.labels[indices], rates[done:stop]).numpy()
                seconds += time.perf_counter() - start
                bar.update(stop - done)
                logs, done = np.concatenate([logs, log]), stop
                if validation is not None and done in looks:
                    recent = logs[rows[-1][0] if rows else 0 :].mean(axis=0)
                    epoch = done * indices.shape[1] / len(split)
                    accuracy, probabilities = evaluate(self.model, validation)
                    loss = float(self.model.compute_loss(y=validation.labels, y_pred=probabilities))
                    rows.append((done, epoch, *recent, loss, accuracy))
        columns = ["update", "epoch", "loss", "accuracy", "validation_loss", "validation_accuracy"]
        history, parallel = pd.DataFrame(rows, columns=columns), {"threads": threads(), "at_once": bench.at_once}
        return Training(recipe, history, logs[:, 0], updates, seconds, **parallel)

    def _reset(self, seed: int) -> None:
        """Forget earlier training runs: all the optimizer's variables start from zero, and dropout from its seed."""
        for variable in self.optimizer.variables:
            variable.assign(np.zeros(variable.shape))
        for position, layer in enumerate(self.model.layers):
            if hasattr(layer, "seed_generator"):
                layer.seed_generator.state.assign([seed % 2**32, len(self.model.layers) - position])


def batch_indices(images: int, recipe: Recipe, seed: int) -> Iterator[np.ndarray]:
    """Yield the indices of batches, endlessly, from seeded permutations of all images.

    A batch is never larger than the training set, and always full: images left over in an epoch go into the next batch.
    """
    size = min(recipe.batch_size, images)
    rng = np.random.default_rng(seed)
    waiting = rng.permutation(images)
    while True:
        if len(waiting) < size:
            waiting = np.concatenate([waiting, rng.permutation(images)])
        yield waiting[:size]
        waiting = waiting[size:]


def evaluate(model: "keras.Model", split: Split) -> tuple[float, np.ndarray]:
    """Return the accuracy on a split and the predicted probabilities, float32 `(n, classes)`."""
    probabilities = predict(model, split.images)
    return float(np.mean(probabilities.argmax(axis=1) == split.labels)), probabilities


def predict(model: "keras.Model", images: Images, dtype: str = "float32") -> np.ndarray:
    """Run a model over images or features `(n, height, width, channels)` batch by batch, without copying them all;
    return `(n, *output_shape)`.

    A batch has at most as many pixels as 256 images of MNIST, because its feature maps take up memory. `dtype` is the
    type of the results; float16 halves the memory of feature maps.
    """
    from helpers.backend import keras

    outputs = np.empty((len(images), *model.output_shape[1:]), dtype)
    batch_size = min(256, 256 * 28 * 28 // math.prod(images.shape[1:3]))
    model.make_predict_function()  # predict_on_batch calls it too, but copies outputs to NumPy before the cast
    for start in range(0, len(images), batch_size):
        BENCH.get().check()
        batch = slice(start, start + batch_size)
        outputs[batch] = keras.ops.cast(model.predict_function([(_batch(model, images, batch),)]), dtype)
    return outputs


def _batch(model: "keras.Model", images: Images, chosen: np.ndarray | slice) -> "tf.Tensor":
    """Select images or features and cast them to the model's input type; NumPy is slow at half precision."""
    from helpers.backend import keras

    return keras.ops.cast(images[chosen], model.inputs[0].dtype)
