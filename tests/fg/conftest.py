"""What the tests of feature generation share."""

import pytest

from tzrec.fg.kernels import use_backend


@pytest.fixture(autouse=True)
def _own_backend():
    """A test that chooses a back end leaves the choice as it was."""
    yield
    use_backend(None)
