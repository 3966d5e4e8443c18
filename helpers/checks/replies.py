"""Replies to answers, and a decorator that makes a check out of a function that finds the mistake in an answer."""

import functools
import math
import os
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

LINE = 88  # characters
NOTHING = "replace the three dots with your answer"
STILL_THERE = "the planted bug is still there"
GRADED = "NBGRADER_EXECUTION" in os.environ  # read now, before a learner's answer can change it


@dataclass(frozen=True)
class Reply:
    """A check's reply; `right` is None while there is no answer."""

    right: bool | None
    text: str

    def __repr__(self) -> str:
        """Return only the text, wrapped, because a notebook would break longer lines in the middle of a word."""
        return textwrap.fill(self.text, LINE)


class NotRightError(AssertionError):
    """A reply for which nbgrader gives no points; a notebook shows its text without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return textwrap.wrap(str(self), LINE)


def exercise(hint: str) -> Callable[[Callable[..., str | None]], Callable[..., Reply]]:
    """Make a check from a function that returns what is wrong with an answer, or None if nothing is.

    The function returns `NOTHING` or `STILL_THERE` while there is no answer; the code with a planted bug counts as an
    answer once it has been edited. Only a wrong answer gets the hint. Under nbgrader, which gives points unless a cell
    fails, the check raises `NotRightError` for any answer that is not right.
    """

    def decorate(complaint: Callable[..., str | None]) -> Callable[..., Reply]:
        planted: list[Any] = []  # the code with the bug, as first seen

        @functools.wraps(complaint)
        def check(answer: Any, *facts: Any) -> Reply:
            try:
                wrong = NOTHING if answer is ... or unwritten(answer) else complaint(answer, *facts)
            except Exception as error:  # a learner's function may raise anything
                wrong = f"that does not work as an answer ({type(error).__name__}: {error})"
            if wrong is None:
                return Reply(True, "Right.")
            if wrong == STILL_THERE:
                planted.append(getattr(answer, "__code__", None))
            missing = wrong == NOTHING or (wrong == STILL_THERE and planted[0] == planted[-1])
            text = f"Not answered yet: {wrong}." if missing else f"Not yet: {wrong}. Hint: {hint}."
            if GRADED:
                raise NotRightError(text)
            return Reply(None if missing else False, text)

        return check

    return decorate


def unwritten(answer: Any) -> bool:
    """Tell whether an answer is an empty function: its instructions are those of one, and it returns None."""
    code = getattr(answer, "__code__", None)
    return code is not None and code.co_code[::2] == _empty.__code__.co_code[::2] and code.co_consts[-1] is None


def _empty() -> None: ...


def count(answer: float, right: int, mistakes: Mapping[int, str]) -> str | None:
    """Say what is wrong with a whole number; `mistakes` maps wrong numbers to explanations."""
    if wrong := not_whole(answer):
        return wrong
    answer = int(answer)
    return None if answer == right else mistakes.get(answer, f"the number is not {answer:,}")


def not_whole(answer: Any) -> str | None:
    """Say why an answer is not a whole number; return None if it is one."""
    if isinstance(answer, tuple):
        return f"Python reads {', '.join(map(str, answer))} as {len(answer)} numbers; write one number, without a comma"
    if isinstance(answer, str):
        return f"{answer!r} is text; write the number without quotes"
    return f"{answer!r} is not a whole number" if isinstance(answer, bool) or answer != int(answer) else None


def close(one: float, other: float) -> bool:
    """Tell whether two numbers agree, apart from rounding to three digits."""
    return math.isclose(one, other, rel_tol=2e-3, abs_tol=5e-4)


def meaning(number: float | None, mistakes: Mapping[float, str]) -> str | None:
    """Return the explanation for a number, even if it is rounded, or for a missing one, or None if there is none."""
    if number is None:
        return "your function returns nothing"
    return next((said for mistake, said in mistakes.items() if close(number, mistake)), None)
