"""How bad input is refused: in one line that names the parameter, the value and what is allowed."""

import re

import pytest


def refused(*parts: str, error: type[Exception] = ValueError):
    """Expect an error whose message is one line and holds each of these parts."""
    together = "".join(f"(?=.*{re.escape(part)})" for part in parts)
    return pytest.raises(error, match=rf"\A{together}[^\n]*\Z")
