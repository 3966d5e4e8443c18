"""Check that bad input is refused in one line that names the parameter, the value, and the allowed values."""

import re

import pytest


def refused(*parts: str, error: type[Exception] = ValueError):
    """Expect an error with a one-line message that contains each of these parts."""
    together = "".join(f"(?=.*{re.escape(part)})" for part in parts)
    return pytest.raises(error, match=rf"\A{together}[^\n]*\Z")
