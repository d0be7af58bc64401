"""Import paths of the interface; the code lives in `tzrec.config`."""

from __future__ import annotations

from tzrec.config.edit import edit_config
from tzrec.config.load import load_pipeline_config, save_message
from tzrec.config.messages import config_to_kwargs, which_msg

__all__ = [
    "config_to_kwargs",
    "edit_config",
    "load_pipeline_config",
    "save_message",
    "which_msg",
]
