"""Keras on TensorFlow, with the settings that it comes with and without TensorFlow's start-up messages.

`from helpers.backend import keras` gives the same Keras whatever a user's keras.json and KERAS_ variables say.

While TensorFlow is imported it writes to file descriptor 2 whatever its log level says, and a notebook would show
that as the cell's output. The level silences what it says later. Set TF_CPP_MIN_LOG_LEVEL to 0, 1 or 2 to see it.
"""

import contextlib
import logging
import os
from collections.abc import Iterator


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    """Send file descriptor 2 nowhere; Python's own exceptions still arrive."""
    saved = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


wants_messages = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") != "3"  # a process started by this one inherits it
for cuts_training_short in ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH"):
    os.environ.pop(cuts_training_short, None)
os.environ["KERAS_BACKEND"] = "tensorflow"
with contextlib.nullcontext() if wants_messages else _without_stderr():
    import keras
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
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # several networks in a row are not "excessive retracing"

__all__ = ["keras"]
