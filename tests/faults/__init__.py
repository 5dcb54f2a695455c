"""The tables of faults: see `table`."""

from pathlib import Path

import pytest

# What they assert is told as in test modules.
pytest.register_assert_rewrite(*(f"{__name__}.{path.stem}" for path in Path(__file__).parent.glob("[a-z]*.py")))
