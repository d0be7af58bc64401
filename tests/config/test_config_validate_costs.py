"""Batches by cost and event times in a config."""

from __future__ import annotations

import pytest
from config_samples import DEEPFM, write

from tzrec.config import prepare
from tzrec.errors import ConfigError

COSTS = 'num_workers: 2 batch_cost_size: 9 sample_cost_field: "cost"'


@pytest.fixture
def check(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def check(data_config: str) -> list[str]:
        """Returns the warnings, or raises."""
        write(tmp_path / "c.config", DEEPFM, ("num_workers: 2", data_config))
        return list(prepare("c.config", log_warnings=False).warning_lines())

    return check


def test_costs_need_a_column(check):
    with pytest.raises(ConfigError, match=r"sample_cost_field: is missing: batch_cost_size adds"):
        check("num_workers: 2 batch_cost_size: 9")
    with pytest.raises(ConfigError, match="batch_cost_size"):
        check(COSTS.replace("9", "0"))
    assert check(COSTS) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('num_workers: 2 sample_cost_field: "cost"', "has no effect without batch_cost_size"),
        (COSTS + " drop_remainder: true", "has no effect with batch_cost_size"),
    ],
)
def test_what_has_no_effect_is_told(check, text, message):
    (line,) = check(text)
    assert message in line


@pytest.mark.parametrize("kind", ["cost", "event time"])
def test_declared_columns_have_it(check, kind):
    fields = 'input_fields_str: "user_id:INT;item_id:INT;price:FLOAT;age:FLOAT;label:INT;'
    fields += 'cost:INT;when:BIGINT" '
    text = COSTS if kind == "cost" else 'num_workers: 2 event_time_field: "when"'
    with pytest.raises(ConfigError) as caught:
        check(text.replace('"cost"', '"cots"').replace('"when"', '"wen"') + " " + fields)
    assert f"{kind} column" in str(caught.value)
    assert "did you mean" in str(caught.value)
