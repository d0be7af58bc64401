"""``python -m tzrec.predict``: predicts a table (the interface's flags)."""

from __future__ import annotations

from tzrec.cli.job import interface_command
from tzrec.cli.parser import Parser
from tzrec.cli.predict import add_table_arguments, predict_with


def parser() -> Parser:
    """Returns the flags."""
    flags = Parser(prog="tzrec.predict", description=__doc__, spellings=False)
    flags.add_argument("--scripted_model_path", help="exported directory")
    flags.add_argument(
        "--pipeline_config_path", help="config file: predict with a checkpoint (wins if both)"
    )
    flags.add_argument("--checkpoint_path", help="checkpoint, default the newest of model_dir")
    flags.add_argument("--predict_input_path", required=True, help="rows to predict")
    flags.add_argument("--predict_output_path", required=True, help="directory for the result")
    add_table_arguments(flags, dash="_")
    flags.add_argument("--edit_config_json", help="JSON object of config path to value")
    return flags


def main(argv: list[str] | None = None) -> int:
    """Runs the module and returns its exit code."""
    return interface_command(parser(), predict_with, argv)


if __name__ == "__main__":
    raise SystemExit(main())
