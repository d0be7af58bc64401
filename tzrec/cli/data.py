"""``tzrec data``."""

from __future__ import annotations

import argparse

from tzrec.cli.job import start
from tzrec.cli.parser import add_edit_json, add_edits, at_least
from tzrec.cli.rules import RULES
from tzrec.demo.shape import command as generate
from tzrec.tools import data_convert

DESCRIPTION = (
    "Input files of tzrec: rows made up to fit a config (generate), or converted from a public\n"
    "data set (convert)."
)
EXAMPLES = """\
  tzrec data generate --for examples/dlrm_criteo.config
  tzrec data generate --for examples/dssm_taobao.config --items 5000 --users 20000
  tzrec data generate --for rank.config --rows 1000000 --files 4 --out /tmp/rows
  tzrec data convert frappe IN OUT"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the sub-commands of ``tzrec data``."""
    actions = data_convert.add_arguments(parser)
    made_up = actions.add_parser(
        "generate", help="make rows with a signal that fit any config, for a first run or a test"
    )
    generate.add_arguments(made_up, at_least)
    add_edits(made_up)
    add_edit_json(made_up)


def run(args: argparse.Namespace) -> int:
    """Generates or converts.

    Raises:
        ConfigError: the config to generate for is wrong.
        DataError: a file cannot be read or written.
    """
    if args.action != "generate":
        return data_convert.run(args)
    start()
    from tzrec.config import prepare

    pipeline = prepare(
        args.config,
        edit_config_json=args.edit_config_json,
        edits=args.edits,
        for_serving=True,
        log_warnings=False,
        rules=RULES,
    )
    return generate.run(args, pipeline.config)
