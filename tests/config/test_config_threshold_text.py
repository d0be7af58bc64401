"""`threshold_filtering_func`: texts that are read, and texts that are refused."""

import pytest

from tzrec.config.threshold_text import Threshold, read_threshold
from tzrec.errors import ConfigError

GOOD = {
    "": None,
    "average_threshold_filter": Threshold("average_threshold_filter", 0.0),
    "lambda x: average_threshold_filter(x)": Threshold("average_threshold_filter", 0.0),
    "dynamic_threshold_filter": Threshold("dynamic_threshold_filter", 10.0),
    "lambda c: dynamic_threshold_filter(c, 2)": Threshold("dynamic_threshold_filter", 2.0),
    "lambda x: dynamic_threshold_filter(x, threshold_skew_multiplier=0.5)": Threshold(
        "dynamic_threshold_filter", 0.5
    ),
    "lambda x: probabilistic_threshold_filter(x, per_id_probability=0.2)": Threshold(
        "probabilistic_threshold_filter", 0.2
    ),
    "probabilistic_threshold_filter": Threshold("probabilistic_threshold_filter", 0.01),
    "lambda x: (x > 10, 10)": Threshold(">", 10.0),
    "lambda x: (x >= 3, 3)": Threshold(">=", 3.0),
    "lambda x: x > 1.5": Threshold(">", 1.5),
}
BAD = {
    "lambda x: open(x)": "calls 'open'",
    "lambda x: __import__('os').system('true')": "calls 'system'",
    "dynamic_treshold_filter": "did you mean 'dynamic_threshold_filter'",
    "lambda x: average_threshold_filter(x, 3)": "it takes none",
    "lambda x: dynamic_threshold_filter(3)": "must hand x",
    "lambda x: dynamic_threshold_filter(x, y)": "where a number must be",
    "lambda x: dynamic_threshold_filter(x, True)": "where a number must be",
    "lambda x: dynamic_threshold_filter(x, 1, 2)": "2 numbers",
    "lambda x: dynamic_threshold_filter(x, skew=1)": "'skew'",
    "lambda x: probabilistic_threshold_filter(x, 2)": "between 0 and 1",
    "lambda x: dynamic_threshold_filter(x, -1)": "not negative",
    "lambda x: (x < 3, 3)": "must compare x > NUMBER",
    "lambda x: (1 < x < 3, 3)": "must compare x > NUMBER",
    "lambda x, y: (x > 3, 3)": "neither a filter function nor a lambda",
    "lambda x: x": "something else",
    "lambda x: x > {[]: 1}": "where a number must be",
    "lambda x: x > '3'": "where a number must be",
    "lambda x: x > 1e999": "where a number must be",
    f"lambda x: x > 1{'0' * 400}": "where a number must be",
    f"lambda x: x > {'-' * 50_000}1": "is no expression",
    "x > 3 3": "is no expression",
    "3": "neither a filter function nor a lambda",
}


@pytest.mark.parametrize("text", GOOD)
def test_texts_that_are_read(text):
    assert read_threshold(text) == GOOD[text]


@pytest.mark.parametrize("text", BAD)
def test_texts_that_are_refused(text):
    with pytest.raises(ConfigError) as caught:
        read_threshold(text)
    assert BAD[text] in str(caught.value)
