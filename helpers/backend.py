"""Keras on TensorFlow, with Keras's default settings and without TensorFlow's startup messages.

`from helpers.backend import keras` applies the same settings, whatever a user's keras.json and KERAS_ variables say.

During its import, TensorFlow writes messages to file descriptor 2 regardless of its log level, and a notebook would
show them as the cell's output. The log level silences only later messages. To see all messages, set
TF_CPP_MIN_LOG_LEVEL to 0, 1 or 2.
"""

import contextlib
import logging
import os
from collections.abc import Iterator


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    """Silence file descriptor 2; Python's own exceptions still get through."""
    saved = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


wants_messages = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") != "3"  # child processes inherit it
for cuts_training_short in ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH"):
    os.environ.pop(cuts_training_short, None)
os.environ["KERAS_BACKEND"] = "tensorflow"
with contextlib.nullcontext() if wants_messages else _without_stderr():
    import keras
    import tensorflow
if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"Keras was imported with the backend {keras.backend.backend()!r} before this course; restart the kernel, and "
        "import the course's helpers first"
    )
keras.config.set_floatx("float32")
keras.config.set_dtype_policy("float32")
keras.config.set_image_data_format("channels_last")
keras.config.set_epsilon(1e-7)
if not wants_messages:
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # or it reports several networks as "excessive retracing"


def one_thread() -> None:
    """Limit TensorFlow to one thread from now on; this has no effect if it has already computed something."""
    with contextlib.suppress(RuntimeError):
        tensorflow.config.threading.set_intra_op_parallelism_threads(1)


def threads() -> int:
    """Return TensorFlow's number of threads: as set in this process or its environment, or else one per core."""
    set_here = tensorflow.config.threading.get_intra_op_parallelism_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return set_here or int(os.environ.get("TF_NUM_INTRAOP_THREADS") or 0) or cores


__all__ = ["keras", "one_thread", "threads"]
