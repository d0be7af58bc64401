"""Streams in a config: what is wrong with them, and what files alone can do."""

from __future__ import annotations

import pytest
from config_samples import DEEPFM, write

from tzrec.cli import main
from tzrec.config import prepare
from tzrec.errors import ConfigError

PATH = "kafka://b1,b2/clicks?group.id=g"


@pytest.fixture
def check(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def check(*edits: str, path: str = PATH) -> list[str]:
        """Returns the warnings, or raises."""
        write(tmp_path / "c.config", DEEPFM)
        edits = ("data_config.dataset_type=KafkaDataset", *edits)
        found = prepare("c.config", train_input_path=path, edits=edits, log_warnings=False)
        return list(found.warning_lines())

    return check


def test_a_stream_is_a_training_input(check):
    # Its brokers are a comma list, which is no list of paths; its messages have a time.
    assert check() == []
    assert check("train_config.save_checkpoints_timestamp_interval=3600") == []
    assert check("eval_input_path=" + PATH) == []


@pytest.mark.parametrize(
    ("edits", "path", "message"),
    [
        ((), "kafka://b/clicks", "train_input_path: kafka://b/clicks has no group.id"),
        (("eval_input_path=kafka://b",), PATH, "eval_input_path: kafka://b/ has no topic"),
        (("data_config.shuffle=true",), PATH, "data_config.shuffle: is true, but a stream is read"),
        (
            ("train_config.save_checkpoints_epochs=1",),
            PATH,
            "train_config.save_checkpoints_epochs: is set, but a pass over the stream",
        ),
        ((), "data/x", "train_input_path: is no topic, but dataset_type is KafkaDataset"),
    ],
)
def test_what_is_wrong(check, edits, path, message):
    with pytest.raises(ConfigError) as caught:
        check(*edits, path=path)
    assert message in str(caught.value)


def test_declared_columns_have_a_type(check, tmp_path):
    names = ("user_id", "item_id", "price", "age", "clk")
    fields = " ".join(
        f'input_fields {{ input_name: "{name}" input_type: INT64 }}' for name in names
    )
    for text, fits in [(fields, True), (fields.replace(" input_type: INT64", "", 1), False)]:
        write(tmp_path / "d.config", DEEPFM, ("num_workers: 2", f"num_workers: 2 {text}"))
        if fits:
            prepare("d.config", train_input_path=PATH)
            continue
        with pytest.raises(ConfigError, match="column 'user_id' has no input_type"):
            prepare("d.config", train_input_path=PATH)


def test_a_pass_that_ends_can_be_counted(check):
    path = f"{PATH}&end.offset=latest"
    assert check("train_config.save_checkpoints_epochs=1", path=path) == []


def test_what_has_no_effect_is_told(check):
    (line,) = check("data_config.in_order=false")
    assert "in_order: has no effect: a stream is read in its order" in line


def test_check_does_not_look_at_messages(check, tmp_path, capsys):
    check()
    arguments = ["check", "c.config", "--data", "--set", f"train_input_path={PATH}"]
    assert main([*arguments, "--set", "eval_input_path="]) == 0
    assert "a stream, not looked at" in capsys.readouterr().out
