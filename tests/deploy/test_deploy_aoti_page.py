"""docs/aot.md accounts for every shipped config."""

from aoti_page import HEAD, NOT_RUN, PAGE, TARGETS, WRONG, read_log, read_page, written
from example_configs import CONFIGS, stem

LOG = """
noise | a | b |
[INFO] export: compiled ESMM in 23 s
.| b_taobao | user | aoti | 1.5e-08 | 25 s |
| b_taobao | item | aoti | 0.0e+00 | 7 s |
.| a_criteo |  | aoti_unified | 0.0e+00 | 46 s |
"""


def test_every_config_is_on_the_page():
    """A new config gets a row, at least one that says that it was not compiled yet."""
    text = PAGE.read_text()
    rows = read_page(text)
    assert written(text, rows, map(stem, CONFIGS)) == text, "run python tests/deploy/aoti_page.py"
    table = text.split(HEAD)[1]
    for config in map(stem, CONFIGS):
        assert f"| {config} | " in table
    for (config, part), found in rows.items():
        assert set(found) <= set(TARGETS), (config, part)
        for target, (gap, seconds) in found.items():
            is_wrong = target == "aoti_unified" and (config, part) in WRONG
            assert (float(gap) <= 1e-6) is not is_wrong
            assert int(seconds) >= 0


def test_a_page_is_written_from_a_log():
    rows = read_log(LOG)
    page = written(f"# Head\n\n{HEAD}\ntail\n", rows, ["b_taobao", "c"])
    assert (
        page
        == f"""# Head

{HEAD}| a_criteo | model | {NOT_RUN} |  | 0.0e+00 | 46 |
| b_taobao | item | 0.0e+00 | 7 | {NOT_RUN} |  |
| b_taobao | user | 1.5e-08 | 25 | {NOT_RUN} |  |
| c | model | {NOT_RUN} |  | {NOT_RUN} |  |

tail
"""
    )
    assert read_page(page) == rows
    assert written(page, rows, ["b_taobao", "c"]) == page
