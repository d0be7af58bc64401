"""BaseModel, the registry, the factory, custom models and the wrappers."""

import pytest
import torch
from google.protobuf import text_format
from models_contract import (
    BCE,
    group,
    make_batch,
    make_features,
    make_model,
    make_rows,
    parse,
    script,
)

from tzrec.config.model_facts import MODELS as FACTS
from tzrec.errors import ConfigError, MissingDependencyError, Unsupported
from tzrec.models.factory import create_model
from tzrec.models.match_model import MatchModel
from tzrec.models.model import BaseModel, PredictWrapper, ScriptWrapper, TrainWrapper
from tzrec.models.rank_model import RankModel
from tzrec.modules.utils import Kernel
from tzrec.protos.model_pb2 import ModelConfig

DEEP = group("deep", "user item")
TOWER = 'multi_tower { towers { input: "deep" } final { hidden_units: 8 } }'


# --- registry and factory ----------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in FACTS if name != "CustomModel"])
def test_every_model_of_the_facts_is_found_by_name(name):
    cls = BaseModel.create_class(name)
    assert cls.__name__ == name
    assert cls.__module__ == FACTS[name].module
    assert issubclass(cls, MatchModel if FACTS[name].is_match else RankModel)
    assert "::" in (cls.__doc__ or ""), "a model's docstring states its formula"


def test_unknown_names_are_answered_with_a_guess():
    with pytest.raises(ConfigError, match="did you mean 'DeepFM'"):
        BaseModel.create_class("DepFM")


def test_models_of_later_versions_and_missing_models():
    with pytest.raises(Unsupported, match="model HSTUMatch comes with a later version"):
        make_model(DEEP + "hstu_match {}" + BCE)
    with pytest.raises(ConfigError, match="model_config has no model"):
        make_model(DEEP + BCE)


def test_kernel_of_the_config_reaches_all_modules():
    assert make_model(DEEP + TOWER + BCE).kernel() == Kernel.PYTORCH
    assert make_model(DEEP + TOWER + BCE + "kernel: TRITON").kernel() == Kernel.TRITON


# --- BaseModel ---------------------------------------------------------------------------------


class _Bare(BaseModel):
    pass


def test_the_contract_names_what_is_not_defined():
    model = _Bare(ModelConfig(), [], [])
    for call in (
        lambda: model(None),
        model.init_loss,
        lambda: model.loss({}, None),
        model.init_metric,
        lambda: model.update_metric({}, None),
    ):
        with pytest.raises(NotImplementedError, match="_Bare does not define"):
            call()
    model.update_train_metric({}, None)
    assert model.compute_metric() == model.compute_train_metric() == {}
    assert model.train_metric_state() == {}


def test_features_in_feature_groups():
    nested = 'sequence_groups { feature_names: ["item", "click__item"] }'
    groups = group("a", "price user", more=nested) + group("b", "user tags")
    config = text_format.Parse(groups, ModelConfig())
    model = _Bare(config, make_features(), [])
    found = model.get_features_in_feature_groups(config.feature_groups)
    assert [f.name for f in found] == ["price", "user", "item", "click__item", "tags"]
    config.feature_groups[1].feature_names.append("tag")
    with pytest.raises(ConfigError, match=r"'tag'.*did you mean 'tags'"):
        model.get_features_in_feature_groups(config.feature_groups)


def test_sparse_parameters_are_the_tables_frozen_ones_apart():
    config = text_format.Parse(
        group("deep", "user item price")
        + group("seq", "item click__item", "SEQUENCE")
        + """
        multi_tower_din {
          towers { input: "deep" }
          din_towers { input: "seq" attn_mlp { hidden_units: 4 } }
          final { hidden_units: 8 }
        }
        losses { binary_cross_entropy {} }
        """,
        ModelConfig(),
    )
    features = make_features()
    features[0].config.trainable = False
    model = create_model(config, features, ["clk"])
    trainable, frozen = model.sparse_parameters()
    names = {id(p): name for name, p in model.named_parameters()}
    assert [names[id(p)].split(".")[-2] for p in frozen] == ["user_emb"]
    # The item's table exists once pooled and once for the sequence.
    assert sorted(names[id(p)].split(".")[-3] for p in trainable) == [
        "embedding_bags",
        "embeddings",
    ]
    assert all("item_emb" in names[id(p)] for p in trainable)


# --- custom models -----------------------------------------------------------------------------

SHOP = """
import dataclasses

from torch import nn

from tzrec.models.rank_model import RankModel


@dataclasses.dataclass
class Head:
    hidden: int = 4


class TwoHead(RankModel):
    @dataclasses.dataclass
    class Config:
        group: str
        width: int = 8
        scale: float = 1.0
        bias: bool = True
        heads: list[Head] = dataclasses.field(default_factory=list)
        head: Head | None = None

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.init_input()
        dim = self.embedding_group.group_total_dim(self._model_config.group)
        self.output = nn.Linear(dim, self._num_class, bias=self._model_config.bias)

    def predict(self, batch):
        groups = self.build_input(batch)
        return self._output_to_prediction(self.output(groups[self._model_config.group]))


class Plain(RankModel):
    pass


class Stranger:
    pass
"""


@pytest.fixture
def shop(tmp_path, monkeypatch):
    (tmp_path / "shop_models.py").write_text(SHOP)
    monkeypatch.syspath_prepend(tmp_path)

    def make(cls="TwoHead", params=""):
        text = f'custom_model {{ class_path: "shop_models.{cls}" params {{ {params} }} }}'
        return make_model(DEEP + text + BCE)

    return make


def _field(name, value):
    return f'fields {{ key: "{name}" value {{ {value} }} }}'


GROUP = _field("group", 'string_value: "deep"')


def test_a_custom_model_trains_and_scripts(shop):
    nested = _field("head", 'struct_value { fields { key: "hidden" value { number_value: 7 } } }')
    listed = _field("heads", "list_value { values { struct_value { } } }")
    model = shop(
        params=GROUP + _field("scale", "number_value: 2") + _field("bias", "bool_value: false")
        + nested + listed
    )  # fmt: skip
    config = model._model_config
    assert (config.width, config.scale, config.bias, config.head.hidden) == (8, 2.0, False, 7)
    assert isinstance(config.scale, float)
    assert config.heads[0].hidden == 4
    rows = make_rows(9)
    batch = make_batch(model.features, rows)
    loss, _ = TrainWrapper(model)(batch)
    loss.backward()
    expected = model(batch)["probs"].detach()
    torch.testing.assert_close(script(model)(parse(model.features, rows))["probs"], expected)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (GROUP + _field("widht", "number_value: 4"), "'widht'; did you mean 'width'"),
        ("", "parameter 'group' is missing"),
        (GROUP + _field("width", "number_value: 1.5"), "width: is 1.5, must be an integer"),
        (GROUP + _field("width", "bool_value: true"), "width: is True, must be an integer"),
        (GROUP + _field("bias", "number_value: 1"), "bias: is 1, must be true or false"),
        (GROUP + _field("heads", "number_value: 1"), "heads: is 1, must be a list"),
        (_field("group", "number_value: 1"), "params.group: is 1, must be a text"),
        (GROUP + _field("head", 'string_value: "x"'), "head: is 'x', must be parameters"),
    ],
)
def test_parameters_of_a_custom_model_are_checked(shop, params, message):
    with pytest.raises(ConfigError, match=message):
        shop(params=params)


def test_class_paths_are_checked(shop):
    with pytest.raises(ConfigError, match="takes no parameters, got group"):
        shop("Plain", GROUP)
    with pytest.raises(ConfigError, match="must be a subclass of BaseModel"):
        shop("Stranger")
    with pytest.raises(ConfigError, match="did you mean 'TwoHead'"):
        shop("TwoHeads")
    with pytest.raises(MissingDependencyError, match="no module 'shap_models'"):
        make_model(DEEP + 'custom_model { class_path: "shap_models.TwoHead" }' + BCE)


# --- wrappers ----------------------------------------------------------------------------------


def _model(**kwargs):
    return make_model(DEEP + TOWER + BCE, **kwargs)


def test_train_wrapper_returns_sum_and_detached_parts():
    text = DEEP + TOWER + "losses { binary_cross_entropy {} } losses { binary_focal_loss {} }"
    wrapper = TrainWrapper(make_model(text))
    batch = make_batch(wrapper.model.features, make_rows(16))
    total, (losses, predictions, same) = wrapper(batch)
    assert same is batch
    assert list(losses) == ["binary_cross_entropy", "binary_focal_loss"]
    assert total.requires_grad
    assert float(total.detach()) == pytest.approx(sum(float(loss) for loss in losses.values()))
    assert not any(t.requires_grad for t in [*losses.values(), *predictions.values()])
    assert all(name.startswith("model.") for name in wrapper.state_dict())


def test_train_wrapper_without_a_loss():
    wrapper = TrainWrapper(make_model(DEEP + TOWER))
    with pytest.raises(ConfigError, match="nothing to learn"):
        wrapper(make_batch(wrapper.model.features, make_rows(4)))


@pytest.mark.parametrize("precision", ["BF16", "FP16"])
def test_mixed_precision_is_near_and_ends_in_float32(precision):
    batch = make_batch(make_features(), make_rows(64))
    exact, (_, exact_predictions, _) = TrainWrapper(_model())(batch)
    mixed, (losses, predictions, _) = TrainWrapper(_model(), mixed_precision=precision)(batch)
    dtypes = {t.dtype for t in [mixed, *losses.values(), *predictions.values()]}
    assert dtypes == {torch.float32}
    assert mixed.item() != exact.item()
    assert mixed.item() == pytest.approx(exact.item(), abs=1e-2)
    found, _ = PredictWrapper(_model(), mixed_precision=precision)(batch)
    assert torch.equal(found["logits"], predictions["logits"])
    assert not torch.equal(found["logits"], exact_predictions["logits"])


@pytest.mark.parametrize("name", [None, "", "FP32"])
def test_fp32_can_be_said(name):
    batch = make_batch(make_features(), make_rows(64))
    _, (_, expected, _) = TrainWrapper(_model())(batch)
    _, (_, found, _) = TrainWrapper(_model(), mixed_precision=name)(batch)
    assert torch.equal(found["logits"], expected["logits"])


@pytest.mark.parametrize("wrapper", [TrainWrapper, PredictWrapper])
def test_unknown_precision(wrapper):
    expected = "'BF61', it must be BF16, FP16, FP32 or empty; did you mean 'BF16'"
    with pytest.raises(ConfigError, match=expected):
        wrapper(_model(), mixed_precision="BF61")


def test_predict_wrapper_filters_columns():
    model = _model(labels=[])
    batch = make_batch(model.features, make_rows(5), labels=[], weights=[])
    predictions, same = PredictWrapper(model, output_cols=["probs"])(batch)
    assert list(predictions) == ["probs"]
    assert not predictions["probs"].requires_grad
    assert same.sparse_features.keys() == batch.sparse_features.keys()
    with pytest.raises(ConfigError, match="'prob'; did you mean 'probs'"):
        PredictWrapper(model, output_cols=["prob"])(batch)


def test_a_model_without_labels_cannot_train():
    with pytest.raises(ConfigError, match="no label to learn from"):
        TrainWrapper(_model(labels=[]))


def test_script_wrapper_builds_the_batch_of_the_parser():
    model = _model()
    rows = make_rows(6)
    batch = ScriptWrapper(model).get_batch(parse(model.features, rows), torch.device("cpu"))
    expected = make_batch(model.features, rows, labels=[], weights=[])
    flat, wanted = batch.to_dict(), expected.to_dict()
    assert flat.keys() == wanted.keys()
    assert all(torch.equal(flat[key], wanted[key]) for key in flat)
