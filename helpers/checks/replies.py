"""What a check replies, and how one is made of a function that says what is wrong with an answer."""

import functools
import math
import os
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

LINE = 88  # characters
NOTHING = "put your answer in place of the three dots"
STILL_THERE = "the bug that was planted is still there"
GRADED = "NBGRADER_EXECUTION" in os.environ  # read before an answer can change it


@dataclass(frozen=True)
class Reply:
    """What a check has to say; `right` is None while there is no answer."""

    right: bool | None
    text: str

    def __repr__(self) -> str:
        """Return the text alone, in lines that a notebook shows whole: it would break longer ones inside a word."""
        return textwrap.fill(self.text, LINE)


class NotRightError(AssertionError):
    """A reply for which nbgrader gives no points; a notebook shows its words without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return textwrap.wrap(str(self), LINE)


def exercise(hint: str) -> Callable[[Callable[..., str | None]], Callable[..., Reply]]:
    """Make a check of a function that returns what is wrong with an answer, or None if nothing is.

    It returns `NOTHING` or `STILL_THERE` where there is no answer yet. Where nbgrader runs the check, it raises
    `NotRightError` for whatever is not right, as nbgrader gives points unless a cell fails.
    """

    def decorate(complaint: Callable[..., str | None]) -> Callable[..., Reply]:
        def reply(answer: Any, *facts: Any) -> Reply:
            try:
                wrong = NOTHING if answer is ... or unwritten(answer) else complaint(answer, *facts)
            except Exception as error:  # whatever a learner's answer or function does
                wrong = f"that does not work as an answer ({type(error).__name__}: {error})"
            if wrong in (NOTHING, STILL_THERE):
                return Reply(None, f"Not answered yet: {wrong}. Hint: {hint}.")
            return Reply(True, "Right.") if wrong is None else Reply(False, f"Not yet: {wrong}. Hint: {hint}.")

        @functools.wraps(complaint)
        def check(answer: Any, *facts: Any) -> Reply:
            given = reply(answer, *facts)
            if GRADED and not given.right:
                raise NotRightError(given.text)
            return given

        return check

    return decorate


def unwritten(answer: Any) -> bool:
    """Tell whether this is a function that does nothing: it has the instructions of an empty one, and returns None."""
    code = getattr(answer, "__code__", None)
    return code is not None and code.co_code[::2] == _empty.__code__.co_code[::2] and code.co_consts[-1] is None


def _empty() -> None: ...


def count(answer: float, right: int, mistakes: Mapping[int, str]) -> str | None:
    """Say what is wrong with a whole number; `mistakes` says of some numbers what they are."""
    if wrong := no_whole_number(answer):
        return wrong
    answer = int(answer)
    return None if answer == right else mistakes.get(answer, f"it is not {answer:,}")


def no_whole_number(answer: Any) -> str | None:
    """Say why an answer is no whole number, or nothing if it is one."""
    if isinstance(answer, tuple):
        return f"Python reads {', '.join(map(str, answer))} as {len(answer)} numbers; write one, without a comma"
    if isinstance(answer, str):
        return f"{answer!r} is a text; write the number without quotes"
    return f"{answer!r} is not a whole number" if isinstance(answer, bool) or answer != int(answer) else None


def close(one: float, other: float) -> bool:
    """Tell whether two numbers are the same, give or take what rounding to three digits leaves."""
    return math.isclose(one, other, rel_tol=2e-3, abs_tol=5e-4)
