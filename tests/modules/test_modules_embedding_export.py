"""Eager = traced = scripted, on other batches than any the tracer could have seen."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from modules_fakes import FromParsed, script, to_batch, to_parsed
from test_modules_embedding import CONFIG, FEATURES, NESTED, ROWS, build
from torchrec.fx import Tracer

from tzrec.errors import DataError

ENCODERS = """
  sequence_groups { group_name: "c" feature_names: ["item", "clicks", "words"] }
  sequence_encoders { self_attention_encoder { input: "c" multihead_attn_dim: 8 num_heads: 2 } }
  sequence_encoders {
    din_encoder { input: "c" attn_mlp { hidden_units: 3 activation: "Dice" } max_seq_length: 2 }
  }
  sequence_encoders {
    multi_window_din_encoder { input: "c" attn_mlp { hidden_units: 3 } windows_len: [2, 6] }
  }
"""
NESTED_ALL = NESTED.replace('group_name: "deep"', f'group_name: "nested" {ENCODERS}')


def batches() -> Iterator[dict[str, list[Any]]]:
    yield ROWS
    yield {name: column[1:2] for name, column in ROWS.items()}  # one row, empty sequences
    yield {name: column[::-1] * 3 for name, column in ROWS.items()}
    longer = {"clicks": [[1, 2, 3, 4, 5, 6, 7]], "words": [[[1, 2]] * 7], "marks": [[[3]] * 7]}
    yield {name: column[:1] for name, column in ROWS.items()} | longer | {"times": [[[0, 1]] * 7]}


@pytest.fixture(scope="module")
def modules() -> tuple[Any, Any]:
    eager = FromParsed(FEATURES, build(CONFIG + NESTED_ALL, wide_embedding_dim=3)).eval()
    return eager, script(eager)


@pytest.mark.parametrize("rows", batches())
def test_scripted_equals_eager(modules: tuple[Any, Any], rows: dict[str, list[Any]]) -> None:
    eager, scripted = modules
    parsed = to_parsed(FEATURES, rows)
    expected, actual = eager(parsed), scripted(parsed)
    assert sorted(actual) == eager.module.grouped_features_keys()
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, atol=1e-6, rtol=0, msg=name)


def test_saved_module_needs_no_python(modules: tuple[Any, Any], tmp_path: Any) -> None:
    eager, scripted = modules
    torch.jit.save(scripted, tmp_path / "m.pt")
    parsed = to_parsed(FEATURES, ROWS)
    loaded = torch.jit.load(tmp_path / "m.pt")(parsed)
    torch.testing.assert_close(loaded, eager(parsed), atol=1e-6, rtol=0)


def test_scripted_parameters_keep_their_names(modules: tuple[Any, Any]) -> None:
    eager, scripted = modules
    assert scripted.state_dict().keys() >= eager.state_dict().keys()


def test_rows_do_not_depend_on_their_neighbours(modules: tuple[Any, Any]) -> None:
    eager, _ = modules
    alone = eager(to_parsed(FEATURES, {name: column[2:3] for name, column in ROWS.items()}))
    together = eager(to_parsed(FEATURES, ROWS))
    for name in ("deep", "wide", "nested", "seq.query"):
        torch.testing.assert_close(alone[name][0], together[name][2], atol=1e-6, rtol=0)


def test_errors_survive_scripting(modules: tuple[Any, Any]) -> None:
    eager, scripted = modules
    parsed = to_parsed(FEATURES, ROWS | {"times": [[], [], [[7, 8]], [[9, 9], [8, 8]]]})
    with pytest.raises(DataError, match="clicks and times"):
        eager(parsed)
    with pytest.raises(Exception, match="clicks and times"):
        scripted(parsed)


def test_traces_with_the_batch_itself_as_input() -> None:
    """As TorchRec's pipelines do, so the forward may not look into the batch."""
    group = build(CONFIG + NESTED_ALL)
    traced = torch.fx.GraphModule(group, Tracer().trace(group))
    batch = to_batch(FEATURES, to_parsed(FEATURES, ROWS))
    torch.testing.assert_close(traced(batch), group(batch))
