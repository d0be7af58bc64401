"""Ranges of numbers and choices of words, one line a field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tzrec.config import specs
from tzrec.config.messages import AnyField, is_map, is_repeated, shortest_float
from tzrec.config.problem import Problem
from tzrec.config.validate.frame import Context
from tzrec.errors import did_you_mean

# Interval per "Message.field"; inf is never inside.
BOUNDS: Mapping[str, str] = {
    "DataConfig.batch_size": "[1, inf)",
    "DataConfig.eval_batch_size": "[1, inf)",
    "DataConfig.batch_cost_size": "[1, inf)",
    "DataConfig.fg_threads": "[0, inf)",
    "DataConfig.shuffle_buffer_size": "[1, inf)",
    "DataConfig.sample_mask_prob": "[0, 1]",
    "DataConfig.negative_sample_mask_prob": "[0, 1]",
    "IdFeature.hash_bucket_size": "[1, inf)",
    "IdFeature.num_buckets": "[1, inf)",
    "IdFeature.embedding_dim": "[1, inf)",
    "RawFeature.embedding_dim": "[1, inf)",
    "RawFeature.value_dim": "[1, inf)",
    "SequenceFeature.sequence_length": "[1, inf)",
    "AutoDisEmbedding.num_channels": "[1, inf)",
    "AutoDisEmbedding.temperature": "(0, inf)",
    "AutoDisEmbedding.keep_prob": "[0, 1]",
    "MLP.hidden_units": "[1, inf)",
    "MLP.dropout_ratio": "[0, 1)",
    "WideAndDeep.wide_embedding_dim": "[1, inf)",
    "DeepFM.wide_embedding_dim": "[1, inf)",
    "xDeepFM.wide_embedding_dim": "[1, inf)",
    "CIN.cin_layer_size": "[1, inf)",
    "Cross.cross_num": "[1, inf)",
    "CrossV2.cross_num": "[1, inf)",
    "CrossV2.low_rank": "[0, inf)",
    "WuKongLayer.lcb_feature_num": "[1, inf)",
    "WuKongLayer.fmb_feature_num": "[1, inf)",
    "WuKongLayer.compressed_feature_num": "[1, inf)",
    "MaskNetModule.n_mask_blocks": "[1, inf)",
    "MaskBlock.hidden_dim": "[1, inf)",
    "MaskBlock.reduction_ratio": "[0, inf)",
    "FinalMLP.num_heads": "[1, inf)",
    "AutoInt.num_layers": "[1, inf)",
    "AutoInt.num_heads": "[1, inf)",
    "AutoInt.attention_dim": "[1, inf)",
    "GatedCross.cross_num": "[1, inf)",
    "TransActTower.num_layers": "[1, inf)",
    "TransActTower.num_heads": "[1, inf)",
    "TransActTower.feedforward_dim": "[1, inf)",
    "TransActTower.dropout_ratio": "[0, 1)",
    "SelfAttentionEncoder.multihead_attn_dim": "[1, inf)",
    "SelfAttentionEncoder.num_heads": "[1, inf)",
    "SelfAttentionEncoder.dropout": "[0, 1)",
    "MultiWindowDINEncoder.windows_len": "[1, inf)",
    "MultiWindowDINTower.windows_len": "[1, inf)",
    "DINEncoder.max_seq_length": "[0, inf)",
    "SimpleAttention.max_seq_length": "[0, inf)",
    "PoolingEncoder.max_seq_length": "[0, inf)",
    "SelfAttentionEncoder.max_seq_length": "[0, inf)",
    "ModelConfig.num_class": "[1, inf)",
    **{
        f"{tower}.{field}": bound
        for tower in ("TaskTower", "BayesTaskTower", "InterventionTaskTower")
        for field, bound in (
            ("num_class", "[1, inf)"),
            ("weight", "[0, inf)"),
            ("in_task_space_weight", "[0, inf)"),
            ("out_task_space_weight", "[0, inf)"),
            ("pareto_min_loss_weight", "[0, 1)"),
        )
    },
    "MMoE.num_expert": "[1, inf)",
    **{f"{model}.temperature": "(0, inf)" for model in specs.MATCH_MODELS},
    **{f"{model}.output_dim": "[0, inf)" for model in specs.MATCH_MODELS},
    "NegativeSampler.num_sample": "[1, inf)",
    "NegativeSamplerV2.num_sample": "[1, inf)",
    "HardNegativeSampler.num_sample": "[1, inf)",
    "HardNegativeSamplerV2.num_sample": "[1, inf)",
    "HardNegativeSampler.num_hard_sample": "[1, inf)",
    "HardNegativeSamplerV2.num_hard_sample": "[1, inf)",
    "TDMSampler.remain_ratio": "(0, 1]",
    "B2ICapsule.max_k": "[1, inf)",
    "B2ICapsule.max_seq_len": "[1, inf)",
    "B2ICapsule.high_dim": "[1, inf)",
    "B2ICapsule.num_iters": "[1, inf)",
    "B2ICapsule.routing_logits_stddev": "[0, inf)",
    "B2ICapsule.squash_pow": "[0, inf)",
    "SequenceUserTower.max_seq_len": "[1, inf)",
    "SequenceUserTower.num_layers": "[1, inf)",
    "SequenceUserTower.num_heads": "[1, inf)",
    "SequenceUserTower.dropout": "[0, 1)",
    "MatchNegatives.frequency_entries": "[1, inf)",
    "MatchNegatives.frequency_decay": "(0, 1]",
    "HitRateAtK.top_k": "[1, inf)",
    "NDCGAtK.top_k": "[1, inf)",
    "DBMTL.num_expert": "[1, inf)",
    "DC2VR.num_expert": "[1, inf)",
    "InterventionTaskTower.low_rank_dim": "[1, inf)",
    "InterventionTaskTower.dropout_ratio": "[0, 1)",
    "PEPNet.epnet_hidden_unit": "[1, inf)",
    "PEPNet.epnet_gamma": "(0, inf)",
    "PEPNet.ppnet_hidden_units": "[1, inf)",
    "PEPNet.ppnet_dropout_ratio": "[0, 1)",
    "PEPNet.ppnet_gamma": "(0, inf)",
    "PEPNet.task_domain_num": "[1, inf)",
    "STEM.num_shared_expert": "[1, inf)",
    "STEM.num_task_expert": "[1, inf)",
    "ExtractionNetwork.expert_num_per_task": "[1, inf)",
    "VariationalDropout.regularization_lambda": "[0, inf)",
    "LossConfig.weight": "[0, inf)",
    "BinaryCrossEntropy.label_smoothing": "[0, 1)",
    "SoftmaxCrossEntropy.label_smoothing": "[0, 1)",
    "BinaryFocalLoss.gamma": "[0, inf)",
    "BinaryFocalLoss.alpha": "(0, 1)",
    "JRCLoss.alpha": "[0, 1]",
    "AUC.thresholds": "[2, inf)",
    "MulticlassAUC.thresholds": "[2, inf)",
    "RecallAtK.top_k": "[1, inf)",
    "Accuracy.top_k": "[1, inf)",
    "Accuracy.threshold": "[0, 1]",
    "XAUC.sample_ratio": "(0, 1]",
    "XAUC.max_pairs": "[1, inf)",
    "GroupedXAUC.max_pairs_per_group": "[1, inf)",
    "NormalizedEntropy.eta": "(0, 1)",
    "TrainMetricConfig.decay_rate": "[0, 1)",
    "TrainMetricConfig.decay_step": "[1, inf)",
    "TrainConfig.log_step_count_steps": "[1, inf)",
    "TrainConfig.gradient_accumulation_steps": "[1, inf)",
    "TrainConfig.save_checkpoints_timestamp_quorum": "(0, 1]",
    "TrainConfig.embedding_l2": "[0, inf)",
    "TrainConfig.dense_l2": "[0, inf)",
    "EarlyStop.patience": "[1, inf)",
    "EarlyStop.min_delta": "[0, inf)",
    "GradScaler.init_scale": "(0, inf)",
    "GradScaler.growth_factor": "(1, inf)",
    "GradScaler.backoff_factor": "(0, 1)",
    "GradScaler.growth_interval": "[1, inf)",
    "GradClipping.max_gradient": "(0, inf)",
    "GradClipping.norm_type": "(0, inf]",
    "EvalConfig.log_step_count_steps": "[1, inf)",
    "EMAConfig.decay": "[0, 1)",
    "FusedRMSpropOptimizer.alpha": "[0, 1]",
    "RMSpropOptimizer.alpha": "[0, 1]",
    "SGDOptimizer.dampening": "[0, inf)",
    "ExponentialDecayLR.decay_size": "[1, inf)",
    "ExponentialDecayLR.decay_factor": "(0, inf)",
    "CosineAnnealingLR.T_max": "[1, inf)",
    "CosineAnnealingWarmRestartsLR.T_0": "[1, inf)",
    "CosineAnnealingWarmRestartsLR.T_mult": "[1, inf)",
    "ManualStepLR.learning_rates": "[0, inf)",
    "ReduceOnPlateauLR.factor": "(0, 1)",
    "ReduceOnPlateauLR.min_delta": "[0, inf)",
}

# The same in every message that has the field.
_ANYWHERE: Mapping[str, str] = {
    "lr": "[0, inf)",
    "beta1": "[0, 1)",
    "beta2": "[0, 1)",
    "eps": "(0, inf)",
    "rho": "[0, 1]",
    "weight_decay": "[0, inf)",
    "momentum": "[0, inf)",
    "initial_accumulator_value": "[0, inf)",
    "max_gradient": "(0, inf)",
    "warmup_learning_rate": "[0, inf)",
    "min_learning_rate": "[0, inf)",
}

_PRECISIONS = ("", *specs.MIXED_PRECISIONS, "FP32")

# Allowed words per "Message.field", compared as they are.
CHOICES: Mapping[str, tuple[str, ...]] = {
    "IdFeature.data_type": ("FP32", "FP16"),
    "RawFeature.data_type": ("FP32", "FP16"),
    "PoolingEncoder.pooling_type": ("mean", "sum"),
    "MulticlassAUC.average": ("macro", "weighted"),
    "B2ICapsule.routing_init_method": ("normal", "zeros"),
    "TDMSampler.probability_type": ("UNIFORM", "ARITHMETIC", "RECIPROCAL"),
    "TrainConfig.mixed_precision": _PRECISIONS,
    "TrainConfig.tensorboard_summaries": specs.TENSORBOARD_SUMMARIES,
    "ExportConfig.mixed_precision": _PRECISIONS,
    "ExportConfig.exporter_type": ("latest", "best"),
}

# Allowed words whatever their case.
CASELESS_CHOICES: Mapping[str, tuple[str, ...]] = {
    "IdFeature.pooling": ("sum", "mean"),
    "RawFeature.pooling": ("sum", "mean"),
    "GradClipping.clipping_type": specs.CLIPPING_TYPES,
}


def check_values(message: Any, path: str, context: Context) -> Iterator[Problem]:
    """Checks every written number and word of a message against the tables."""
    del context
    for field, value in message.ListFields():
        name = f"{message.DESCRIPTOR.name}.{field.name}"
        bound = BOUNDS.get(name) or _ANYWHERE.get(field.name)
        if bound is not None and not is_map(field):
            for where, number in _elements(field, value, path):
                if not inside(number, bound):
                    yield Problem(where, f"is {_number(number)}, must be {describe(bound)}")
        for where, word in _elements(field, value, path) if name in CHOICES else ():
            yield from _choice(where, word, CHOICES[name])
        for where, word in _elements(field, value, path) if name in CASELESS_CHOICES else ():
            yield from _choice(where, word.lower(), CASELESS_CHOICES[name], shown=word)


def _elements(field: AnyField, value: Any, path: str) -> Iterator[tuple[str, Any]]:
    here = f"{path}.{field.name}" if path else field.name
    if is_repeated(field):
        yield from ((f"{here}[{index}]", element) for index, element in enumerate(value))
    else:
        yield here, value


def _choice(
    where: str, word: str, choices: tuple[str, ...], shown: str | None = None
) -> Iterator[Problem]:
    if word not in choices:
        options = [choice for choice in choices if choice]
        text = shown if shown is not None else word
        yield Problem(
            where,
            f"is {text!r}, must be one of {', '.join(options)}{did_you_mean(word, options)}",
        )


def inside(number: float, bound: str) -> bool:
    """Tells whether a number lies in an interval such as ``(0, 1]``."""
    low, high = (float(part) for part in bound[1:-1].split(","))
    above = number >= low if bound[0] == "[" else number > low
    below = number <= high if bound[-1] == "]" else number < high
    return above and below


def describe(bound: str) -> str:
    """Returns an interval in words: ``at least 1``, ``between 0 and 1``."""
    low, high = (part.strip() for part in bound[1:-1].split(","))
    lower = f"at least {low}" if bound[0] == "[" else f"above {low}"
    if high == "inf":
        return lower
    if bound[0] == "[" and bound[-1] == "]":
        return f"between {low} and {high}"
    return f"{lower} and {'at most' if bound[-1] == ']' else 'below'} {high}"


def _number(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{shortest_float(number):g}"
