"""The golden cases of feature generation through `FgHandler`, on both back ends."""

import pytest
from fg_golden import VECTORS, cases, check, columns, farm_hash

from tzrec.fg import FgHandler
from tzrec.fg.hashing import murmur_hash64a
from tzrec.fg.kernels import use_backend

pytestmark = pytest.mark.skipif(not VECTORS.exists(), reason="needs ../shared/vectors")

CASES = [c for c in cases("feature", "fg_dag") if c["fg_mode"] != "FG_NONE"]


@pytest.fixture(params=["numba", "numpy"], autouse=True)
def backend(request):
    use_backend(request.param)
    yield request.param
    use_backend(None)


def handler_of(case):
    fg_json, build = case["fg_json"], case.get("build") or {}
    if isinstance(fg_json, list):
        if build.get("sequence_name"):
            names = ("sequence_name", "sequence_length", "sequence_delim")
            fg_json = [{name: build[name] for name in names} | {"features": fg_json}]
        fg_json = {"features": fg_json}
    return FgHandler(fg_json, farm_hash=farm_hash(case))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"][-60:])
def test_golden(case):
    found = handler_of(case).process_arrow(columns(case))
    for name, expected in case["expected"].items():
        if isinstance(expected["values"], str):  # the case that states a formula
            hashes = [murmur_hash64a(word) % 1000 for word in (b"p", b"q", b"p|q")]
            expected = {**expected, "values": hashes}
        check(found[name], expected, unordered=case.get("unordered_within_row", False))
    assert list(found) == [name for name in found if name in case["expected"]]
