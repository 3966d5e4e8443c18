# /// script
# dependencies = ["nbformat", "textstat==0.7.3"]  # later versions download a dictionary
# ///
"""Measure how easily texts read: words, mean words per sentence, and Flesch reading ease (higher is easier).

uv run tools/readability.py [README.md docs/running.md ...]

Without a name it measures the lessons. What counts is prose: no code, no headings, no figures, no lists of further
reading. Code in a line counts as one short word, a row of a table as a sentence.
"""

import re
import sys
from pathlib import Path

import nbformat
import textstat

LESSONS = Path(__file__).resolve().parents[1] / "notebooks"


def prose(source: str) -> str:
    """Return the sentences of a Markdown cell, each part that ends without a full stop as a sentence of its own."""
    for unread in (r"(?s)```.*?```", r"(?s)## Further reading.*", r"(?m)^(#+ .*|[-| ]+)$", r"<[^>]+>", r"!\[.*?\)"):
        source = re.sub(unread, "", source)
    source = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", source)
    source = re.sub(r"[*>]", "", re.sub(r"`[^`]*`", "it", source))
    parts = [" ".join(part.replace("|", " ").split()) for part in re.split(r"\n\s*\n|\n- |\n\d+\. |\n\|", source)]
    return " ".join(re.sub(r"[:;,]?$", ".", part) if part[-1] not in ".?!" else part for part in parts if part)


def main() -> None:
    """Print a line for each text, and one for all of them."""
    texts = {}
    for path in map(Path, sys.argv[1:] or sorted(LESSONS.glob("[0-9]*.ipynb"))):
        if path.suffix == ".ipynb":
            cells = nbformat.read(path, as_version=4).cells
            texts[path.stem] = " ".join(prose(cell.source) for cell in cells if cell.cell_type == "markdown")
        else:
            texts[path.stem] = prose(path.read_text(encoding="utf-8"))
    for name, text in {**texts, "all": " ".join(texts.values())}.items():
        words = textstat.lexicon_count(text)
        per_sentence = words / textstat.sentence_count(text)
        ease = textstat.flesch_reading_ease(text)
        print(f"{name:<25} {words:6,} words, {per_sentence:4.1f} per sentence, reading ease {ease:.0f}")


if __name__ == "__main__":
    main()
