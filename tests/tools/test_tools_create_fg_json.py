"""``python -m tzrec.tools.create_fg_json``."""

import json
from pathlib import Path

import fg_feed
import numpy as np
import pyarrow.parquet as pq
import pytest

from tzrec.errors import ConfigError
from tzrec.fg import FgHandler
from tzrec.tools.create_fg_json import main
from tzrec.tools.fg_setup import load_config, setup_of

WITH_FILES = (
    fg_feed.FEATURES
    + """
feature_configs { id_feature { feature_name: "word" expression: "item:brand" vocab_file: "words.txt" asset_dir: "vocab" default_bucketize_value: 0 embedding_dim: 2 } }
feature_configs { custom_feature { feature_name: "twice" operator_name: "TwiceOfTest" operator_lib_file: "twice.py" expression: ["item:price"] } }
"""  # noqa: E501
)
OPERATOR = """
import pyarrow as pa
import pyarrow.compute as pc
from tzrec.fg.custom import fg_operator

@fg_operator("TwiceOfTest")
def twice(columns, params):
    return pc.multiply(pc.cast(columns[0], pa.float64()), 2)
"""


@pytest.fixture
def feed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("vocab").mkdir()
    Path("vocab/words.txt").write_text("p\nq\n")
    Path("twice.py").write_text(OPERATOR)
    Path("c.config").write_text(fg_feed.config_text(".", features=WITH_FILES))
    table = fg_feed.feed(300)
    pq.write_table(table, "raw.parquet")
    return {name: table[name] for name in table.column_names}


def create(*flags):
    return main(["--pipeline_config_path", "c.config", *flags])


def assert_same(one, other, columns):
    left, right = one.process_arrow(columns), other.process_arrow(columns)
    assert list(left) == list(right)
    for name in left:
        for part in ("values", "lengths", "key_lengths", "weights"):
            np.testing.assert_array_equal(getattr(left[name], part), getattr(right[name], part))


def test_the_written_handler_is_the_one_of_the_config(feed, monkeypatch):
    assert create("--fg_output_dir", "out/fg") == 0
    of_config = setup_of(load_config("c.config")).handler()
    names = sorted(path.name for path in Path("out/fg").iterdir())
    assert [name.partition("_")[0] for name in names] == ["fg.json", "twice", "words"]
    # Nothing but the directory is needed.
    target = Path("elsewhere")
    Path("out/fg").rename(target)
    for path in ("vocab/words.txt", "twice.py", "c.config"):
        Path(path).unlink()
    assert_same(of_config, FgHandler.load("elsewhere"), feed)
    monkeypatch.chdir(target)
    assert_same(of_config, FgHandler.load("fg.json", threads=2), feed)


def test_equal_files_are_written_once(feed):
    text = WITH_FILES.replace('"word"', '"again"').replace('"twice"', '"twice_again"')
    text = WITH_FILES + text[text.index('feature_configs { id_feature { feature_name: "again"') :]
    Path("c.config").write_text(fg_feed.config_text(".", features=text))
    assert create("--fg_output_dir", "out") == 0
    assert len(list(Path("out").iterdir())) == 3


def test_reserves_and_name(feed):
    assert (
        create(
            "--fg_output_dir", "o", "--reserves", "request, clicked", "--fg_resource_name", "f.json"
        )
        == 0
    )
    found = json.loads(Path("o/f.json").read_text())
    assert found["reserves"] == ["request", "clicked"]
    assert "user" in FgHandler.load("o/f.json").features


def test_without_bucketizers(feed):
    assert create("--fg_output_dir", "o", "--remove_bucketizer") == 0
    text = Path("o/fg.json").read_text()
    for key in ("hash_bucket_size", "vocab_list", "vocab_dict", "boundaries", "num_buckets"):
        assert f'"{key}"' not in text
    assert '"vocab_file"' not in text
    assert '"default_bucketize_value"' in text
    found = FgHandler.load("o").generate(feed)
    assert found["price"].values.dtype == np.float32
    assert found["one_tag"].is_text


def test_to_the_screen(feed, capsys):
    assert create() == 0
    entries = json.loads(capsys.readouterr().out)["features"]
    assert entries == setup_of(load_config("c.config")).fg_json["features"]


def test_debug_generates_a_batch(feed, capsys):
    assert create("--fg_output_dir", "o", "--debug") == 0
    assert "price: 64 values in 64 rows" in capsys.readouterr().err
    table = pq.read_table("raw.parquet").drop_columns(["price"])
    pq.write_table(table, "raw.parquet")
    assert create("--fg_output_dir", "o", "--debug") == 3


def test_what_cannot_be_done(feed, capsys):
    assert create("--odps_project_name", "p") == 2
    assert "not uploaded to MaxCompute" in capsys.readouterr().err
    assert create("--reserve", "x") == 2
    assert "did you mean '--reserves'" in capsys.readouterr().err
    Path("vocab/words.txt").unlink()
    assert create("--fg_output_dir", "o") == 2
    assert "words.txt" in capsys.readouterr().err


def test_loading_what_is_no_fg_json(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        FgHandler.load(str(tmp_path))
    path = tmp_path / "fg.json"
    path.write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        FgHandler.load(str(path))
    path.write_text("[]")
    with pytest.raises(ConfigError, match="must be an object"):
        FgHandler.load(str(path))
    path.write_text("{}")
    with pytest.raises(ConfigError, match='"features"'):
        FgHandler.load(str(path))


def test_a_folder_by_scheme(feed):
    assert create("--fg_output_dir", "memory://fg/one") == 0
    import fsspec

    names = [Path(name).name for name in fsspec.filesystem("memory").ls("/fg/one", detail=False)]
    assert "fg.json" in names
    assert any(name.startswith("words_") for name in names)


def test_hash_follows_the_environment(feed, monkeypatch):
    monkeypatch.setenv("USE_FARM_HASH_TO_BUCKETIZE", "true")
    setup = setup_of(load_config("c.config"))
    assert setup.farm_hash
    ids = setup.handler().process_arrow(feed)["user"].values
    plain = FgHandler(setup.fg_json).process_arrow(feed)["user"].values
    assert not np.array_equal(ids, plain)
