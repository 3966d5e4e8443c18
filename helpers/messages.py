"""Words that the course's messages share."""

from collections.abc import Iterable


def listed(values: Iterable[object]) -> str:
    """Join values with commas, as messages and figures list classes or allowed names; no value breaks the line."""
    texts = map(str, values)
    return ", ".join(text if text.isprintable() else repr(text) for text in texts)
