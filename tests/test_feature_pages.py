"""The examples of docs/features give what the pages show."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
_SPEC = importlib.util.spec_from_file_location("feature_pages", ROOT / "scripts/feature_pages.py")
feature_pages = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(feature_pages)

PAGES = sorted((ROOT / "docs" / "features").glob("*.md"))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_page_is_up_to_date(path):
    page = path.read_text(encoding="utf-8")
    assert feature_pages.render(page) == page


def test_every_kind_has_a_page():
    from tzrec.fg.config_entries import KINDS
    from tzrec.fg.operators.base import OPERATORS

    # A text normalizer is a part of tokenize_feature.
    kinds = {*KINDS, *OPERATORS, "sequence_feature"} - {"text_normalizer"}
    assert kinds <= {path.stem for path in PAGES}
