"""How the options of an export are decided, and what model_acc.json says of them."""

from __future__ import annotations

import dataclasses
import json

import pytest

from tzrec.deploy.options import (
    INTERFACE_DEFAULTS,
    Asked,
    ExportOptions,
    refuse_device,
    refuse_later,
    resolve_options,
)
from tzrec.errors import ConfigError, Unsupported
from tzrec.options import from_environment

ASKED = {
    "target": "aoti",
    "quantisation": "INT4",
    "sequence_quantisation": "FP16",
    "input_tile": 2,
    "max_batch_size": 7,
    "autotune": True,
    "tolerance": 0.5,
}
# What the environment can say, and that it is different.
VARIABLES = {
    "target": ("ENABLE_AOT", "2", "aoti_unified"),
    "quantisation": ("QUANT_EMB", "1", "INT8"),
    "sequence_quantisation": ("QUANT_EC_EMB", "INT2", "INT2"),
    "input_tile": ("INPUT_TILE", "3", 3),
    "max_batch_size": ("MAX_EXPORT_BATCH_SIZE", "99", 99),
}


def resolved(asked=None, environment=None, **fixed):
    return resolve_options(asked, from_environment(environment or {}).export, **fixed)


def test_nothing_asked_for():
    options = resolved()
    assert options == ExportOptions()
    assert not options.quantises
    assert options.model_acc() == {"SPARSE_INT64": "1", "QUANT_EMB": "0"}
    assert str(options) == "target torchscript"


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Asked)])
def test_flags(name):
    asked = {name: ASKED[name]} | ({"target": "aoti"} if name == "autotune" else {})
    options = resolved(Asked(**asked))
    assert getattr(options, name) == ASKED[name] != getattr(ExportOptions(), name)
    assert options.sources[name] == "asked for"
    assert options.variables == {}


@pytest.mark.parametrize("name", VARIABLES)
def test_flag_then_environment_then_default(name):
    variable, text, value = VARIABLES[name]
    defaults = Asked(**{name: ASKED[name]})
    assert getattr(resolved(defaults=defaults), name) == ASKED[name]
    found = resolved(environment={variable: text}, defaults=defaults)
    assert getattr(found, name) == value
    assert found.sources == {name: f"environment variable {variable}"}
    assert found.variables == {variable: text}
    both = resolved(Asked(**{name: ASKED[name]}), {variable: text})
    assert getattr(both, name) == ASKED[name]
    assert both.variables == {}


def test_autotune_of_the_environment():
    environment = {"ENABLE_AOT": "1", "AOTI_AUTOTUNE_WITH_SAMPLE_INPUTS": "1"}
    assert resolved(environment=environment).autotune
    environment["AOTI_AUTOTUNE_WITH_SAMPLE_INPUTS"] = "0"
    assert not resolved(environment=environment).autotune


@pytest.mark.parametrize("target", [None, "torchscript"])
def test_autotune_of_the_environment_is_for_what_is_compiled(target, caplog):
    """The variable is often set for all jobs; a flag is meant for this one."""
    environment = {"AOTI_AUTOTUNE_WITH_SAMPLE_INPUTS": "1"}
    if target is not None:  # the flag wins over the environment
        environment["ENABLE_AOT"] = "1"
    options = resolved(Asked(target=target), environment)
    assert (options.target, options.autotune) == ("torchscript", False)
    assert "AOTI_AUTOTUNE_WITH_SAMPLE_INPUTS" not in options.variables
    assert "AOTI_AUTOTUNE_WITH_SAMPLE_INPUTS" not in options.model_acc()
    assert "AOTI_AUTOTUNE_WITH_SAMPLE_INPUTS=1 is for compiled exports" in caplog.text
    with pytest.raises(ConfigError, match="autotune is for compiled exports"):
        resolved(Asked(target=target, autotune=True), {})


def test_default_of_the_interface():
    options = resolved(defaults=INTERFACE_DEFAULTS)
    assert (options.quantisation, options.sequence_quantisation) == ("INT8", "")
    assert options.sources == {"quantisation": "default of the command"}
    assert "quantisation INT8 (default of the command)" in str(options)
    for text in ("0", "FP32"):
        off = resolved(environment={"QUANT_EMB": text}, defaults=INTERFACE_DEFAULTS)
        assert off.quantisation == ""
        assert off.model_acc()["QUANT_EMB"] == text
        assert "quantisation off (environment variable QUANT_EMB)" in str(off)


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        # The processor gets what it got from the interface: the text of the variable.
        ({"QUANT_EMB": "1", "INPUT_TILE": "3"}, {"QUANT_EMB": "1", "INPUT_TILE": "3"}),
        ({"QUANT_EMB": "int4"}, {"QUANT_EMB": "int4"}),
        ({"QUANT_EC_EMB": "1"}, {"QUANT_EMB": "0", "QUANT_EC_EMB": "1"}),
        ({"QUANT_EC_EMB": "0"}, {"QUANT_EMB": "0"}),
        ({"INPUT_TILE": "1"}, {"QUANT_EMB": "0"}),
        ({"ENABLE_AOT": "1"}, {"QUANT_EMB": "0", "ENABLE_AOT": "1"}),
        ({"UNIFIED_AOT": "1"}, {"QUANT_EMB": "0", "ENABLE_AOT": "2"}),
        ({"UNIFIED_AOT": "true", "ENABLE_AOT": "1"}, {"QUANT_EMB": "0", "ENABLE_AOT": "2"}),
        (
            {"MAX_EXPORT_BATCH_SIZE": "64", "ENABLE_AOT": "1",
             "AOTI_AUTOTUNE_WITH_SAMPLE_INPUTS": "1"},
            {"QUANT_EMB": "0", "ENABLE_AOT": "1", "MAX_EXPORT_BATCH_SIZE": "64",
             "AOTI_AUTOTUNE_WITH_SAMPLE_INPUTS": "1"},
        ),
    ],
)  # fmt: skip
def test_model_acc_of_the_environment(environment, wanted):
    assert resolved(environment=environment).model_acc() == {"SPARSE_INT64": "1", **wanted}


def test_model_acc_of_flags():
    asked = Asked("aoti_unified", "FP16", "INT8", 2, max_batch_size=5)
    assert resolved(asked).model_acc() == {
        "SPARSE_INT64": "1",
        "QUANT_EMB": "FP16",
        "QUANT_EC_EMB": "INT8",
        "INPUT_TILE": "2",
        "ENABLE_AOT": "2",
        "MAX_EXPORT_BATCH_SIZE": "5",
    }


def test_options_are_json():
    options = resolved(Asked(**ASKED), asset_files=("a",), additional_export_config={"x": [1]})
    assert json.loads(json.dumps(options.to_dict())) == options.to_dict()
    assert options.to_dict()["tolerance"] == 0.5


@pytest.mark.parametrize(
    ("kwargs", "tolerance"),
    [
        ({}, 1e-6),
        ({"quantisation": "FP32", "sequence_quantisation": "FP32"}, 1e-6),
        ({"quantisation": "INT8"}, 1e-5),
        ({"sequence_quantisation": "FP16"}, 1e-5),
        ({"quantisation": "INT8", "tolerance": 1e-7}, 1e-7),
        ({"tolerance": 0}, 0),
        ({"mixed_precision": "BF16"}, 2.0**-6),
        ({"mixed_precision": "FP16", "quantisation": "INT8"}, 2.0**-8),
        ({"mixed_precision": "FP16", "tolerance": 1e-4}, 1e-4),
    ],
)
def test_tolerance(kwargs, tolerance):
    options = ExportOptions(**kwargs)
    assert options.largest_difference == tolerance
    assert options.relative_difference == (tolerance if options.mixed_precision else 0)
    assert not options.scales_difference


@pytest.mark.parametrize(
    ("kwargs", "scales"),
    [({}, True), ({"mixed_precision": "BF16"}, True), ({"tolerance": 1e-4}, False)],
)
def test_the_usual_tolerance_of_compiled_code_is_a_part_of_the_score(kwargs, scales):
    assert ExportOptions(target="aoti", **kwargs).scales_difference is scales


def test_additional_entries():
    options = ExportOptions(additional_export_config={"cand_seq_pk": "c", "QUANT_EMB": "0"})
    assert options.model_acc() == {"SPARSE_INT64": "1", "QUANT_EMB": "0", "cand_seq_pk": "c"}
    with pytest.raises(ConfigError, match="says QUANT_EMB = 'INT8', the export has '0'"):
        ExportOptions(additional_export_config={"QUANT_EMB": "INT8"})
    with pytest.raises(ConfigError, match="says SPARSE_INT64 = '0', the export has '1'"):
        ExportOptions(additional_export_config={"SPARSE_INT64": "0"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ENABLE_AOT", "1"),
        ("INPUT_TILE", 3),
        ("QUANT_EC_EMB", "INT8"),
        ("MAX_EXPORT_BATCH_SIZE", "64"),
        ("AOTI_AUTOTUNE_WITH_SAMPLE_INPUTS", "1"),
    ],
)
def test_additional_entries_of_what_is_off(name, value):
    """A processor would read a plain export as a tiled or compiled one."""
    with pytest.raises(ConfigError, match=f"says {name} = '?{value}'?, the export has '0'"):
        ExportOptions(additional_export_config={name: value})
    assert ExportOptions(additional_export_config={name: "0"}).model_acc()[name] == "0"
    tiled = ExportOptions(input_tile=3, additional_export_config={"INPUT_TILE": 3})
    assert tiled.model_acc()["INPUT_TILE"] == 3


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"target": "aot"}, "did you mean 'aoti'"),
        ({"quantisation": "INT9"}, "quantisation 'INT9' is not one of"),
        ({"sequence_quantisation": "INT"}, "sequence_quantisation 'INT' is not one of"),
        ({"input_tile": 1}, "input_tile 1 of an export: must be 0, 2 or 3"),
        ({"mixed_precision": "BF17"}, "did you mean 'BF16'"),
        ({"max_batch_size": -1}, "max_batch_size -1"),
        ({"autotune": True}, "autotune is for compiled exports"),
        ({"tolerance": float("inf")}, "tolerance inf"),
    ],
)
def test_wrong_values(kwargs, message):
    with pytest.raises(ConfigError, match=message):
        ExportOptions(**kwargs)


def test_what_comes_later():
    refuse_later(())
    with pytest.raises(Unsupported, match=r"USE_RTP=1, DIST_QUANT=INT8 in the environment"):
        refuse_later(("USE_RTP=1", "DIST_QUANT=INT8"))


@pytest.mark.parametrize("name", ["mixed_precision", "quantisation", "sequence_quantisation"])
def test_devices(name):
    refuse_device({name: "x"}, "cpu")
    refuse_device({name: ""}, "cuda")
    with pytest.raises(Unsupported, match=f"an export with {name} x runs on the CPU only"):
        refuse_device({name: "x"}, "cuda")
