"""The science: images, networks, training and statistics. Finding and running notebooks is the job of `runner`.

A module imports only from modules listed before it: `backend`, `messages`, `images`, `layouts`, `files`, `datasets`,
`tasks`, `store`, `provenance`, `folders`, `photos`, `cnn`, `training`, `transfer`, `experiment`, `backbones`,
`statistics`, `choice`, `starts`, `wording`, `plots`, `checks`. Importing TensorFlow takes several seconds, so functions
that need Keras import it themselves, through `backend`.
"""

import os

__version__ = "1.0.0"

if _settings := [name for name in os.environ if name.startswith("TQDM_") and name != "TQDM_DISABLE"]:
    try:
        import tqdm.std  # noqa: F401
    except ValueError:  # one of the values is not a number, and tqdm does not say which
        for _name in _settings:
            if not os.environ[_name].isdecimal():
                del os.environ[_name]
