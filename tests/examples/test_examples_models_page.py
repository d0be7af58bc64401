"""docs/models.md: every model has its row, and what the row says is so."""

import importlib
import re
from pathlib import Path

import pytest
from example_configs import CONFIGS, ROOT

from tzrec.config import load_pipeline_config
from tzrec.config.messages import which_field
from tzrec.config.model_facts import MODELS
from tzrec.protos.model_pb2 import ModelConfig

PAGE = (ROOT / "docs" / "models.md").read_text()
ROWS = {
    cells[1].strip("` "): cells
    for line in PAGE.splitlines()
    if line.startswith("|") and "`" in line
    for cells in [[cell.strip() for cell in line.strip("|").split("|")]]
}
FIELDS = {
    field.message_type.name: field.name
    for field in ModelConfig.DESCRIPTOR.oneofs_by_name["model"].fields
}
BUILT = {FIELDS[name]: name for name in MODELS if name != "CustomModel"}


def test_there_is_a_row_for_each_model():
    assert set(ROWS) == set(BUILT)
    assert all(len(cells) == 5 for cells in ROWS.values())


def test_every_example_is_that_of_its_model():
    named = {}
    for field, cells in ROWS.items():
        for stem in re.findall(r"\[(\w+)\]\(\.\./examples/\1\.config\)", cells[4]):
            named[stem] = field
    built = {
        path.stem: which_field(load_pipeline_config(str(path)).model_config, "model")
        for path in CONFIGS
        if path.parent.name == "examples"
    }
    assert named == built


@pytest.mark.parametrize("field", ROWS)
def test_groups_are_those_of_the_model(field):
    facts, cell = MODELS[BUILT[field]], ROWS[field][3]
    required, _, optional = cell.partition("optional")
    fields = {*facts.inputs, *(field.partition(".")[0] for field in facts.group_fields)}
    assert set(re.findall(r"`(\w+)`", required)) == {*facts.required_groups, *fields}
    assert set(re.findall(r"`(\w+)`", optional)) == set(facts.optional_groups)
    assert ("first group" in cell) is bool(facts.first_group)


@pytest.mark.parametrize("field", ROWS)
def test_the_paper_is_that_of_the_docstring(field):
    module = importlib.import_module(MODELS[BUILT[field]].module)
    source = Path(module.__file__).read_text()
    for number in re.findall(r"arxiv\.org/abs/(\d+\.\d+)", ROWS[field][0]):
        assert number in source
    for author, year in re.findall(r"\[(\w+) et al\. (\d+)\]", ROWS[field][0]):
        assert author in source or re.search(rf"arXiv \d+\.\d+|{year}", source)
