"""The import paths and method names that code written for the interface uses.

Sources: the interface's descriptions of models, modules, wrappers and the factory. What a later
version brings is not in the list.
"""

import inspect
import pkgutil

import pytest
import torch
from google.protobuf import text_format

from tzrec.protos.model_pb2 import ModelConfig

MODULE_FLAGS = "set_is_inference set_kernel kernel is_inference is_eval is_train"
CONTRACT = (
    "predict loss init_loss init_metric update_metric compute_metric compute_train_metric "
    "sparse_parameters get_features_in_feature_groups forward"
)
CLASSES = {
    "tzrec.modules.utils.BaseModule": MODULE_FLAGS,
    "tzrec.models.model.BaseModel": f"{MODULE_FLAGS} {CONTRACT} create_class",
    "tzrec.models.model.TrainWrapper": "forward",
    "tzrec.models.model.PredictWrapper": "forward",
    "tzrec.models.model.ScriptWrapper": "get_batch forward",
    "tzrec.models.model.CombinedModelWrapper": "forward",
    "tzrec.models.rank_model.RankModel": (
        f"{CONTRACT} init_input build_input _output_to_prediction _output_to_prediction_impl "
        "_init_loss_impl"
    ),
    "tzrec.models.wide_and_deep.WideAndDeep": "predict",
    "tzrec.models.deepfm.DeepFM": "predict",
    "tzrec.models.multi_tower.MultiTower": "predict",
    "tzrec.models.multi_tower_din.MultiTowerDIN": "predict",
    "tzrec.models.dlrm.DLRM": "predict",
    "tzrec.models.dcn_v1.DCNV1": "predict",
    "tzrec.models.dcn_v2.DCNV2": "predict",
    "tzrec.models.xdeepfm.xDeepFM": "predict",
    "tzrec.models.wukong.WuKong": "predict",
    "tzrec.models.mask_net.MaskNet": "predict",
    "tzrec.models.rocket_launching.RocketLaunching": "predict loss",
    "tzrec.models.multi_task_rank.MultiTaskRank": (
        f"{CONTRACT} _multi_task_output_to_prediction update_train_metric"
    ),
    "tzrec.models.match_model.MatchModel": f"{CONTRACT} sim update_train_metric",
    "tzrec.models.match_model.MatchTower": f"{MODULE_FLAGS} init_input build_input",
    "tzrec.models.match_model.MatchTowerWoEG": MODULE_FLAGS,
    "tzrec.models.match_model.TowerWrapper": "predict forward",
    "tzrec.models.match_model.TowerWoEGWrapper": "predict forward",
    "tzrec.models.dssm.DSSM": "predict",
    "tzrec.models.dssm.DSSMTower": "forward",
    "tzrec.models.dssm_v2.DSSMV2": "predict",
    "tzrec.models.dat.DAT": "predict loss",
    "tzrec.models.mind.MIND": "predict",
    "tzrec.models.mmoe.MMoE": "predict",
    "tzrec.models.ple.PLE": "predict",
    "tzrec.models.dbmtl.DBMTL": "predict",
    "tzrec.models.dc2vr.DC2VR": "predict",
    "tzrec.models.pepnet.PEPNet": "predict",
    "tzrec.models.tdm.TDM": "predict export_parts",
    "tzrec.modules.embedding.EmbeddingGroup": (
        "forward group_names has_group group_type group_dims group_total_dim group_feature_dims"
    ),
    "tzrec.modules.embedding.EmbeddingGroupImpl": "forward group_total_dim",
    "tzrec.modules.embedding.SequenceEmbeddingGroup": "forward",
    "tzrec.modules.embedding.SequenceEmbeddingGroupImpl": "forward",
    "tzrec.modules.dense_embedding_collection.DenseEmbeddingCollection": "forward",
    "tzrec.modules.mlp.MLP": "forward output_dim",
    "tzrec.modules.mlp.Perceptron": "forward",
    "tzrec.modules.task_tower.TaskTower": "forward",
    "tzrec.modules.mmoe.MMoE": "forward output_dim",
    "tzrec.modules.extraction_net.ExtractionNet": "forward output_dim",
    "tzrec.modules.masknet.MaskNetModule": "forward output_dim",
    "tzrec.modules.variational_dropout.VariationalDropout": "forward",
    "tzrec.modules.capsule.CapsuleLayer": "forward",
    "tzrec.metrics.recall_at_k.RecallAtK": "update compute reset",
    "tzrec.modules.sequence.DINEncoder": "forward input output_dim",
    "tzrec.features.feature.BaseFeature": "parse emb_bag_config emb_config",
    "tzrec.datasets.dataset.BaseDataset": "",
    "tzrec.datasets.data_parser.DataParser": "parse to_batch",
    "tzrec.datasets.sampler.BaseSampler": "get estimated_sample_num",
    "tzrec.datasets.sampler.NegativeSampler": "get estimated_sample_num",
    "tzrec.datasets.sampler.NegativeSamplerV2": "get estimated_sample_num",
    "tzrec.datasets.sampler.HardNegativeSampler": "get estimated_sample_num",
    "tzrec.datasets.sampler.HardNegativeSamplerV2": "get estimated_sample_num",
    "tzrec.datasets.sampler.TDMSampler": "get estimated_sample_num",
    "tzrec.datasets.sampler.TDMPredictSampler": "get",
    "tzrec.datasets.utils.Batch": "to pin_memory record_stream to_dict",
}
FUNCTIONS = {
    "tzrec.main._create_model": "model_config features labels sample_weights sampler_type",
    "tzrec.main._create_features": "",
    "tzrec.models.match_model._sim_with_sampler": "user_emb item_emb hard_neg_indices",
    "tzrec.main.train_and_evaluate": "pipeline_config_path train_input_path model_dir",
    "tzrec.main.evaluate": "pipeline_config_path checkpoint_path eval_input_path",
    "tzrec.main.export": "pipeline_config_path export_dir checkpoint_path asset_files",
    "tzrec.main.predict": "predict_input_path predict_output_path scripted_model_path",
    "tzrec.main.predict_checkpoint": "pipeline_config_path predict_input_path checkpoint_path",
    "tzrec.datasets.dataset.create_dataloader": "data_config features input_path mode",
    "tzrec.features.feature.create_features": "feature_configs fg_mode",
    "tzrec.utils.load_class.get_register_class_meta": "class_map",
    "tzrec.utils.config_util.which_msg": "message oneof",
    "tzrec.utils.config_util.config_to_kwargs": "",
    "tzrec.utils.config_util.load_pipeline_config": "",
}
# What a subclass or a caller may pass by name.
ARGUMENTS = {
    "tzrec.models.model.BaseModel": "model_config features labels sample_weights sampler_type",
    "tzrec.models.match_model.MatchModel.sim": "user_emb item_emb hard_neg_indices",
    "tzrec.models.model.TrainWrapper": "module device mixed_precision",
    "tzrec.models.model.PredictWrapper": "module device mixed_precision output_cols",
    "tzrec.models.model.ScriptWrapper": "module",
    "tzrec.modules.utils.BaseModule": "is_inference kernel",
    "tzrec.modules.embedding.EmbeddingGroup": (
        "features feature_groups wide_embedding_dim wide_init_fn device"
    ),
    "tzrec.modules.mlp.MLP": (
        "in_features hidden_units dropout_ratio activation use_bn use_ln bias dim "
        "return_hidden_layer_feature"
    ),
    "tzrec.models.match_model.MatchTower": (
        "tower_config output_dim similarity feature_groups features model_config"
    ),
    "tzrec.models.match_model.TowerWrapper": "module tower_name",
    "tzrec.models.match_model.TowerWoEGWrapper": "module embedding_group tower_name",
    "tzrec.metrics.recall_at_k.RecallAtK": "top_k",
    "tzrec.modules.task_tower.TaskTower": "tower_feature_in num_class mlp",
    "tzrec.modules.mmoe.MMoE": "in_features expert_mlp num_expert num_task gate_mlp",
    "tzrec.modules.variational_dropout.VariationalDropout": (
        "features_dimension name regularization_lambda"
    ),
}


def _load(path):
    return pkgutil.resolve_name(path)


@pytest.mark.parametrize("path", CLASSES)
def test_classes_and_methods(path):
    cls = _load(path)
    assert isinstance(cls, type)
    assert [name for name in CLASSES[path].split() if not hasattr(cls, name)] == []


@pytest.mark.parametrize("path", [*FUNCTIONS, *ARGUMENTS])
def test_arguments(path):
    known = inspect.signature(_load(path)).parameters
    wanted = (FUNCTIONS | ARGUMENTS)[path].split()
    assert [name for name in wanted if name not in known] == []


def test_family_tree():
    base = _load("tzrec.models.model.BaseModel")
    assert issubclass(base, _load("tzrec.modules.utils.BaseModule"))
    rank = _load("tzrec.models.rank_model.RankModel")
    assert issubclass(rank, base)
    for name in ("wide_and_deep.WideAndDeep", "deepfm.DeepFM", "multi_tower.MultiTower"):
        assert issubclass(_load(f"tzrec.models.{name}"), rank)
    tasks = _load("tzrec.models.multi_task_rank.MultiTaskRank")
    assert issubclass(tasks, rank)
    for name in ("mmoe.MMoE", "ple.PLE", "dbmtl.DBMTL", "pepnet.PEPNet"):
        assert issubclass(_load(f"tzrec.models.{name}"), tasks)


def test_from_the_message_to_the_class():
    """What `_create_model` does: the selected message's name, then the class of that name."""
    config = text_format.Parse("deepfm { deep { hidden_units: 4 } }", ModelConfig())
    name = _load("tzrec.utils.config_util.which_msg")(config, "model")
    assert name == "DeepFM"
    found = _load("tzrec.models.model.BaseModel").create_class(name)
    assert found is _load("tzrec.models.deepfm.DeepFM")


def test_a_registry_of_ones_own():
    class_map = {}
    meta = _load("tzrec.utils.load_class.get_register_class_meta")(class_map)

    class Base(metaclass=meta):
        pass

    class Derived(Base):
        pass

    assert class_map == {"Base": Base, "Derived": Derived}
    assert Base.create_class("Derived") is Derived


def test_flags_reach_all_modules():
    base = _load("tzrec.modules.utils.BaseModule")
    kernel = _load("tzrec.modules.utils.Kernel")

    class Outer(base):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.ModuleList([base()])

    outer = Outer()
    assert (outer.is_train, outer.is_eval, outer.is_inference) == (True, False, False)
    outer.eval()
    assert (outer.is_train, outer.is_eval) == (False, True)
    outer.set_is_inference(True)
    assert (outer.is_eval, outer.inner[0].is_inference) == (False, True)
    outer.set_kernel(kernel.TRITON)
    assert outer.inner[0].kernel() == kernel.TRITON


def test_task_tower_with_and_without_layers():
    tower = _load("tzrec.modules.task_tower.TaskTower")
    x = torch.randn(5, 6)
    plain = tower(6, 2)
    torch.testing.assert_close(plain(x), x @ plain.linear.weight.T + plain.linear.bias)
    deep = tower(6, 3, mlp={"hidden_units": [4]})
    hidden = torch.relu(deep.tower_mlp.mlp[0].perceptron[0](x))
    torch.testing.assert_close(deep(x), deep.linear(hidden))
