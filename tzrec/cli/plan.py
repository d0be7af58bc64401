"""``tzrec plan``."""

from __future__ import annotations

import argparse
import json
import re

from tzrec.cli.job import check_early, start
from tzrec.cli.parser import add_config, add_edit_json, add_edits, at_least, config_of
from tzrec.errors import ConfigError

DESCRIPTION = (
    "Says where the embedding tables of a config would go on machines that need not be there:\n"
    "bytes, sharding and ranks of each table, and what to do if they do not fit."
)
EXAMPLES = """\
  tzrec plan rank.config --world-size 8 --hbm 80GB --ddr 512GB     eight GPUs in one machine
  tzrec plan rank.config --world-size 4 --hosts 2 --ddr 64GB       CPUs, two processes a machine
  tzrec plan rank.config --world-size 2 --ddr 64GB --json > plan.json"""

_UNITS = {
    "": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}


def num_bytes(text: str) -> int:
    """Returns the bytes of ``80GB`` (80·10⁹) or ``80GiB`` (80·2³⁰); a type of a flag."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)", text.strip())
    if not match or match[2].upper() not in _UNITS:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 80GB or 512GiB")
    count = int(float(match[1]) * _UNITS[match[2].upper()])
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is nothing")
    return count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``tzrec plan``."""
    add_config(parser)
    parser.add_argument(
        "--world-size", type=at_least(1), default=1, metavar="N", help="number of processes"
    )
    parser.add_argument(
        "--hosts",
        type=at_least(1),
        default=1,
        metavar="N",
        help="machines that share the processes evenly (default: 1)",
    )
    parser.add_argument(
        "--hbm", type=num_bytes, metavar="SIZE", help="memory of a GPU (80GB); one a process"
    )
    parser.add_argument(
        "--ddr", type=num_bytes, metavar="SIZE", help="main memory of a machine (512GB)"
    )
    parser.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        help="what computes (default: cuda with --hbm, else cpu)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, as plan.json of a run")
    add_edits(parser)
    add_edit_json(parser)


def run(args: argparse.Namespace) -> int:
    """Plans, and prints the table."""
    path = config_of(args, "plan")
    _check(args)
    overrides = {"edit_config_json": args.edit_config_json, "edits": tuple(args.edits)}
    start()
    check_early(path, **overrides)
    from tzrec.config import prepare
    from tzrec.training.distributed.cluster import Cluster
    from tzrec.training.distributed.offline import plan_offline

    cluster = Cluster(
        args.world_size,
        args.hosts,
        args.device or ("cuda" if args.hbm else "cpu"),
        args.hbm or 0,
        args.ddr,
    )
    plan = plan_offline(prepare(path, **overrides).config, cluster)
    print(json.dumps(plan.as_dict(), indent=1) if args.json else plan)
    return 0


def _check(args: argparse.Namespace) -> None:
    """Raises ConfigError for flags that do not go together."""
    if args.ddr is None:
        raise ConfigError("tzrec plan: --ddr is missing, the main memory of a machine (512GB)")
    if args.device == "cuda" and args.hbm is None:
        raise ConfigError("tzrec plan: --device cuda needs --hbm, the memory of a GPU (80GB)")
    if args.device == "cpu" and args.hbm is not None:
        raise ConfigError("tzrec plan: --hbm is the memory of a GPU, --device cpu has none")
    if args.world_size % args.hosts:
        raise ConfigError(
            f"tzrec plan: {args.world_size} processes cannot be shared by {args.hosts} machines",
            hint="--world-size counts the processes of all machines",
        )
