"""Configs: load, edit, check. Imports no torch.

Example::

    pipeline = prepare("rank.config", edits=["data_config.batch_size=256"])
    pipeline.config.data_config.batch_size
"""

from __future__ import annotations

from tzrec.config.edit import edit_config, set_config
from tzrec.config.load import load_pipeline_config, save_message
from tzrec.config.messages import config_to_kwargs, which_field, which_msg
from tzrec.config.pipeline import Pipeline, prepare
from tzrec.config.problem import Problem, SourceMap
from tzrec.config.validate import validate

__all__ = [
    "Pipeline",
    "Problem",
    "SourceMap",
    "config_to_kwargs",
    "edit_config",
    "load_pipeline_config",
    "prepare",
    "save_message",
    "set_config",
    "validate",
    "which_field",
    "which_msg",
]
