"""The headers of the shipped configs: what they promise is so."""

import importlib
import re
import shlex

import pytest
from example_configs import CONFIGS, DEMO, commands, stem
from feed_data import write_tokenizer

from tzrec import train_eval
from tzrec.cli import COMMANDS, main
from tzrec.cli.parser import Parser
from tzrec.config import prepare
from tzrec.training.build import build_features


@pytest.fixture(autouse=True, scope="module")
def _tokenizer(tmp_path_factory):
    """Works where the feed finds its tokenizer."""
    root = tmp_path_factory.mktemp("work")
    write_tokenizer(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        yield


@pytest.mark.parametrize("path", CONFIGS, ids=stem)
def test_is_valid_without_warnings(path, capsys):
    assert main(["check", str(path)]) == 0
    out = capsys.readouterr().out
    assert "OK" in out
    assert "warning" not in out


def parse(words):
    """Arguments of a command, parsed as the command would."""
    if words[0] == "torchrun":
        assert words[1:4] == ["--nproc-per-node=2", "-m", "tzrec.train_eval"]
        return train_eval.parser().parse_args(words[4:])
    assert words[1] in COMMANDS
    parser = Parser(prog=words[1])
    importlib.import_module(f"tzrec.cli.{words[1]}").add_arguments(parser)
    return parser.parse_args(words[2:])


@pytest.mark.parametrize("path", CONFIGS, ids=stem)
def test_the_commands_of_the_header_are_ones(path):
    given = commands(path)
    assert any(words[:2] == ["tzrec", "train"] for words in given)
    for words in given:
        arguments = vars(parse(words))
        config = arguments.get("config") or arguments.get("pipeline_config_path")
        if config is not None and path != DEMO:
            assert config == f"examples/{path.name}"


@pytest.mark.parametrize("path", CONFIGS, ids=stem)
def test_the_header_says_what_it_needs(path):
    header = path.read_text().split("\n\n")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    assert "# Needs: " in header
    config = prepare(str(path)).config
    for folder in re.findall(r"data/\w+", header):
        assert folder in f"{config.train_input_path},{config.eval_input_path}"
    for change in re.findall(r"# Change:  add (.*)", header):
        assert main(["check", str(path), *shlex.split(change)]) == 0
    for name in re.findall(r"^# {12}(\w+) ", header, re.MULTILINE):
        # The columns of the table: first of a range, a label or read by a feature.
        features = build_features(config.data_config, config.feature_configs)
        named = {column for f in features for column in f.inputs}
        assert name in {*named, *config.data_config.label_fields}
