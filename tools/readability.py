# /// script
# dependencies = ["nbformat", "textstat==0.7.3"]  # later versions download a dictionary
# ///
"""Measure how easily the lessons read: words, mean words per sentence, and Flesch reading ease (higher is easier).

uv run tools/readability.py

What counts is prose: no code, no headings, no lists of further reading; code in a line counts as one short word.
"""

import re
from pathlib import Path

import nbformat
import textstat

LESSONS = Path(__file__).resolve().parents[1] / "notebooks"


def prose(source: str) -> str:
    """Return the sentences of a Markdown cell, each part that ends without a full stop as a sentence of its own."""
    for unread in (r"(?s)```.*?```", r"(?s)## Further reading.*", r"(?m)^(#+ .*|---)$", r"<[^>]+>"):
        source = re.sub(unread, "", source)
    source = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", source)
    source = re.sub(r"[*>|]", "", re.sub(r"`[^`]*`", "it", source))
    parts = [" ".join(part.split()) for part in re.split(r"\n\s*\n|\n- |\n\d+\. ", source)]
    return " ".join(re.sub(r"[:;,]?$", ".", part) if part[-1] not in ".?!" else part for part in parts if part)


def main() -> None:
    """Print a line for each lesson, and one for all of them."""
    texts = {}
    for path in sorted(LESSONS.glob("[0-9]*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        texts[path.stem] = " ".join(prose(cell.source) for cell in cells if cell.cell_type == "markdown")
    for name, text in {**texts, "all": " ".join(texts.values())}.items():
        words = textstat.lexicon_count(text)
        per_sentence = words / textstat.sentence_count(text)
        ease = textstat.flesch_reading_ease(text)
        print(f"{name:<25} {words:6,} words, {per_sentence:4.1f} per sentence, reading ease {ease:.0f}")


if __name__ == "__main__":
    main()
