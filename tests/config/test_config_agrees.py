"""What `tzrec check` accepts of a feature, the feature itself accepts, and the other way round."""

from __future__ import annotations

import fsspec
import pytest
from config_samples import DEEPFM, write
from google.protobuf import text_format

from tzrec.config import prepare
from tzrec.config.validate.data import input_fields
from tzrec.config.validate.frame import Context
from tzrec.datasets.schema import parse_input_fields_str
from tzrec.errors import TzrecError
from tzrec.features.feature import create_features
from tzrec.protos.pipeline_pb2 import EasyRecConfig

ID, RAW = "num_buckets: 1000", 'expression: "user:age"'
VOCAB = 'vocab_file: "memory://agrees/words" default_bucketize_value: 0'

# (old text, new text, both accept it)
CASES = [
    (ID, f'{ID} init_fn: "nn.init.uniform_,a=-0.1,b=0.1"', True),
    (ID, f'{ID} init_fn: "torch.nn.init.normal_, 0, 0.1"', True),
    (ID, f'{ID} init_fn: " "', True),
    (ID, f'{ID} init_fn: "torch.zeros"', False),
    (ID, f'{ID} init_fn: "nn.Linear,1"', False),
    (ID, f'{ID} init_fn: "nn.init.unifrom_"', False),
    (ID, f'{ID} init_fn: "nn.init.uniform_,low=0"', False),
    (ID, f'{ID} init_fn: "nn.init.constant_"', False),
    (ID, f'{ID} init_fn: "nn.init.uniform_,a=f(1)"', False),
    (ID, f'{ID} fg_encoded_default_value: "5"', True),
    (ID, f'{ID} fg_encoded_default_value: "5\\0037"', True),
    (ID, f'{ID} fg_encoded_default_value: "1000"', False),
    (ID, f'{ID} fg_encoded_default_value: "5:0.5"', False),
    (ID, f'{ID} weighted: true fg_encoded_default_value: "5"', True),
    (ID, f'{ID} weighted: true fg_encoded_default_value: "5:0.5"', False),
    (ID, VOCAB, True),
    (ID, 'asset_dir: "memory://agrees" vocab_file: "words" default_bucketize_value: 2', True),
    (ID, VOCAB.replace("value: 0", "value: 3"), False),
    (ID, VOCAB.replace("words", "none"), False),
    (ID, VOCAB.replace("words", "mixed"), False),
    (ID, VOCAB.replace("words", "twice"), False),
    (ID, 'vocab_dict { key: "a" value: 0 } num_buckets: 1', False),
    (ID, 'vocab_dict { key: "a" value: 0 } num_buckets: 1 default_bucketize_value: 0', True),
    (RAW, f'{RAW} fg_encoded_default_value: "0.5"', True),
    (RAW, f'{RAW} fg_encoded_default_value: "0.5\\0031"', False),
    (RAW, f'{RAW} fg_encoded_default_value: "nan"', False),
    (RAW, f'{RAW} value_dim: 2 fg_encoded_default_value: "0.5\\0031"', True),
]


@pytest.fixture(scope="module", autouse=True)
def vocabularies():
    texts = {"words": "a\nb\nc\n", "mixed": "a 1\nb\n", "twice": "a\nb\na\n"}
    for name, text in texts.items():
        with fsspec.open(f"memory://agrees/{name}", "w") as file:
            file.write(text)


def accepts(act, *args, **kwargs) -> bool:
    try:
        act(*args, **kwargs)
    except TzrecError:
        return False
    return True


# Forms of input_fields_str.
FIELDS = [
    ("a:INT64; b : float ;", True),
    ("a:BIGINT;b:ARRAY<ARRAY<INT>>;c:MAP<STRING,DOUBLE>", True),
    ("a:ARRAY<ARRAY<ARRAY<INT>>>", False),
    ("a:ARRAY<MAP<STRING,INT>>", False),
    ("a:MAP<FLOAT,INT>", False),
    ("a:MAP<STRING,ARRAY<INT>>", False),
    ("a:INTEGER", False),
    ("a:", False),
    (":INT", False),
    ("a", False),
    ("a:INT;a:INT", False),
]


@pytest.mark.parametrize(("text", "accepted"), FIELDS)
def test_check_and_readers_agree_on_types(text, accepted):
    config = EasyRecConfig()
    config.data_config.input_fields_str = text
    problems = list(input_fields(Context(config)))
    assert (not problems) == accepted
    assert accepts(parse_input_fields_str, text) == accepted


@pytest.mark.parametrize(("old", "new", "accepted"), CASES, ids=[new for _, new, _ in CASES])
def test_check_and_features_agree(tmp_path, old, new, accepted):
    path = write(tmp_path / "c.config", DEEPFM, (old, new))
    config = text_format.Parse(DEEPFM.replace(old, new, 1), EasyRecConfig())
    assert accepts(prepare, path, log_warnings=False) == accepted
    assert accepts(create_features, config.feature_configs) == accepted
