"""Tokenizers made by the test itself, and operators of users."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tzrec.errors import ConfigError, FeatureError
from tzrec.fg import FgHandler
from tzrec.fg.custom import fg_operator
from tzrec.fg.hashing import murmur_hash64a
from tzrec.fg.kernels import use_backend
from tzrec.fg.operators.tokenize_feature import vocabulary_size

WORDS = {"[UNK]": 0, "the": 1, "red": 2, "cat": 3, "0": 4}


@pytest.fixture(params=["numba", "numpy"], autouse=True)
def backend(request):
    use_backend(request.param)
    yield
    use_backend(None)


@pytest.fixture
def tokenizer_file(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")

    def make(**truncation):
        tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(WORDS, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        tokenizer.add_special_tokens(["[CLS]"])
        tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
            single="[CLS] $A", special_tokens=[("[CLS]", 5)]
        )
        if truncation:
            tokenizer.enable_truncation(**truncation)
        path = str(tmp_path / "tokenizer.json")
        tokenizer.save(path)
        return path

    return make


def run(entry, column, *more):
    entry = {"feature_name": "f", "expression": "item:c", **entry}
    return FgHandler({"features": [*more, entry]}).process_arrow({"c": pa.array(column)})["f"]


def tokens(path, **options):
    return {
        "feature_type": "tokenize_feature",
        "vocab_file": path,
        "tokenizer_type": "bpe",
        "output_type": "word_id",
        "default_value": "0",
        **options,
    }


def test_no_special_tokens_the_default_is_tokenised(tokenizer_file):
    path = tokenizer_file()
    found = run(tokens(path), ["the red cat", None, "the dog", "", "the red cat"])
    assert found.values.tolist() == [1, 2, 3, 4, 1, 0, 4, 1, 2, 3]
    assert found.lengths.tolist() == [3, 1, 2, 1, 3]
    assert run(tokens(path, default_value=""), [None]).lengths.tolist() == [0]
    assert vocabulary_size(path, "bpe") == 6


def test_truncation_of_the_file(tokenizer_file):
    path = tokenizer_file(max_length=2)
    assert run(tokens(path), ["the red cat"]).values.tolist() == [1, 2]


def test_tokens_of_steps(tokenizer_file):
    entry = tokens(tokenizer_file(), sequence_delim=";", sequence_length=2)
    found = run({**entry, "feature_type": "sequence_tokenize_feature"}, ["the cat;;red", None])
    assert found.values.tolist() == [1, 3, 4, 4]
    assert found.key_lengths.tolist() == [2, 1, 1]
    assert found.lengths.tolist() == [2, 1]


def test_behind_a_normalizer(tokenizer_file):
    normalizer = {
        "feature_type": "text_normalizer",
        "feature_name": "n",
        "expression": "item:c",
        "parameter": 4 | 32,
        "stub_type": True,
    }
    entry = {**tokens(tokenizer_file()), "expression": "feature:n"}
    found = run(entry, ["THE, Cat!", None], normalizer)
    assert found.values.tolist() == [1, 3, 4]


def test_hostile_text(tokenizer_file):
    column = pa.array([b"the \xff", b"\x00", b"cat"], pa.binary()).view(pa.string())
    assert run(tokens(tokenizer_file()), column).values[-1] == 3


def test_sentencepiece(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    path = tmp_path / "words.model"
    with path.open("wb") as stream:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["the red cat", "a cat", "the dog is red"] * 20),
            model_writer=stream,
            vocab_size=16,
            minloglevel=2,
        )
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    found = run(tokens(str(path), tokenizer_type="sentencepiece"), ["the cat", None])
    expected = [processor.encode(text) for text in ("the cat", "0")]
    assert found.values.tolist() == [token for text in expected for token in text]
    assert found.lengths.tolist() == [len(text) for text in expected]
    assert vocabulary_size(str(path), "sentencepiece") == 16


# Operators of users


@fg_operator("TestRatio")
def ratio(columns, params):
    clicks, views = columns
    scale = pa.scalar(float(params.get("scale", 1)))
    both = [pc.cast(column, pa.float64()) for column in (clicks, views)]
    return pc.multiply(pc.divide(*both), scale)


@fg_operator("TestSuffix")
def suffix(columns, params):
    return pc.binary_join_element_wise(columns[0], params["suffix"], "")


@fg_operator("TestTooFew")
def too_few(columns, params):
    return columns[0].slice(1)


def custom(name, columns, **options):
    entry = {
        "feature_type": "custom_feature",
        "feature_name": "f",
        "operator_name": name,
        "expression": [f"user:{column}" for column in columns],
        "value_type": "float",
        "value_dim": 1,
        "default_value": "-1",
        **options,
    }
    arrays = {name: pa.array(column) for name, column in columns.items()}
    return FgHandler({"features": [entry]}).process_arrow(arrays)["f"]


def test_operator_of_numbers():
    columns = {"clicks": [1, 2, None], "views": [4, 4, 4]}
    found = custom("TestRatio", columns, scale=2)
    assert found.values.ravel().tolist() == [0.5, 1.0, -1.0]
    found = custom("TestRatio", columns, boundaries=[0.3])
    assert found.values.tolist() == [0, 1, 0]


def test_operator_of_text():
    found = custom(
        "TestSuffix",
        {"a": ["x", None]},
        suffix="!",
        value_type="string",
        hash_bucket_size=100,
        default_value="d",
    )
    assert found.values.tolist() == [murmur_hash64a(t) % 100 for t in (b"x!", b"d")]


def test_operator_of_steps():
    found = custom("TestRatio", {"a": ["1;2"], "b": [4]}, is_sequence=True, sequence_fields=["a"])
    np.testing.assert_array_equal(found.values.ravel(), np.float32([0.25, 0.5]))
    assert found.lengths.tolist() == [2]


def test_operator_in_a_file(tmp_path):
    path = tmp_path / "my_operators.py"
    path.write_text(
        "import pyarrow.compute as pc\n"
        "from tzrec.fg.custom import fg_operator\n"
        '@fg_operator("TestLength")\n'
        "def length(columns, params):\n"
        "    return pc.utf8_length(columns[0])\n"
    )
    found = custom("TestLength", {"a": ["é", "abc"]}, operator_lib_file=str(path))
    assert found.values.ravel().tolist() == [1.0, 3.0]


def test_wrong_operators():
    with pytest.raises(FeatureError, match=r"'TestTooFew' gave 1 rows, must give .* of 2 rows"):
        custom("TestTooFew", {"a": ["x", "y"]})
    with pytest.raises(FeatureError, match="gives text, but its value_type is float"):
        custom("TestSuffix", {"a": ["x"]}, suffix="!")
    with pytest.raises(ConfigError, match="two functions want to be the operator 'TestRatio'"):
        fg_operator("TestRatio")(suffix)


@pytest.mark.parametrize(
    "column", [["1\x1d2", None, "5", ""], [[1, 2], None, [5], []], [["1", "2"], [], ["5"], None]]
)
def test_generated_tokens_are_read_as_numbers_or_text(tokenizer_file, column):
    handler = FgHandler(
        {"features": [{"feature_name": "f", "expression": "item:c", **tokens(tokenizer_file())}]},
        bucketize_only=True,
    )
    found = handler.process_arrow({"f": pa.array(column)})["f"]
    assert found.values.tolist() == [1, 2, 4, 5, 4]
    assert found.lengths.tolist() == [2, 1, 1, 1]
    with pytest.raises(FeatureError, match=r"row 1 .*'cat', which is not a whole number"):
        handler.process_arrow({"f": pa.array(["1", "cat"])})
    # Vocabulary of 6: no id is outside the table.
    assert handler.process_arrow({"f": pa.array([5, 6, -1])})["f"].values.tolist() == [5, 0, 0]
