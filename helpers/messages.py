"""Messages that several modules share: lists of values, and checks of lists and counts."""

from collections.abc import Iterable, Sequence


def listed(values: Iterable[object]) -> str:
    """Join values with commas, to list classes or allowed names in messages and figures; escape any line breaks."""
    texts = map(str, values)
    return ", ".join(text if text.isprintable() else repr(text) for text in texts)


def check_list(name: str, value: object, entries: str) -> None:
    """Raise ValueError for a parameter that is not a list with at least one entry."""
    if isinstance(value, str) and value.startswith("["):
        raise ValueError(f'{name}: {value!r} is text; to pass a list to papermill, use -y "{name}: {value}", not -p')
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise ValueError(f"{name}: {value!r} is not a list of {entries}")


def check_counts(**counts: object) -> None:
    """Raise ValueError for a parameter that is not a whole number of at least 1."""
    for name, value in counts.items():
        if type(value) is not int or value < 1:
            raise ValueError(f"{name}: {value!r} is not allowed; give a whole number of at least 1")
