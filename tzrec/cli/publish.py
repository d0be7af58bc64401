"""``tzrec publish``."""

from __future__ import annotations

import argparse

from tzrec.cli.console import UsageError
from tzrec.cli.job import start
from tzrec.cli.parser import at_least

DESCRIPTION = (
    "Adds an export (or what `tzrec index` made) as a new version to ROOT and makes it the\n"
    "current one; servers of ROOT (`tzrec serve ROOT`) take it up without dropping a request.\n"
    "The copy is loaded and scores its golden batch first; nothing changes if it fails."
)
EXAMPLES = """\
  tzrec publish run/export models
  tzrec publish run/export models --name 2026-11-22 --keep 3
  tzrec publish models --rollback
  tzrec publish models --list"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``tzrec publish``."""
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="EXPORT ROOT",
        help="what to publish, and the directory of versions (made where there is none); "
        "ROOT alone with --rollback and --list",
    )
    parser.add_argument(
        "--name",
        metavar="NAME",
        help="of the new version (default: the time); with --rollback: which one to go back to "
        "(default: the one before the current one)",
    )
    parser.add_argument(
        "--keep",
        type=at_least(0),
        default=5,
        metavar="N",
        help="keep the newest N versions (%(default)s); 0 keeps all; two always stay",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--rollback", action="store_true", help="make an older version current")
    what.add_argument("--list", action="store_true", help="show the versions")


def run(args: argparse.Namespace) -> int:
    """Publishes, goes back, or lists."""
    wanted = 1 if args.rollback or args.list else 2
    if len(args.paths) != wanted:
        needs = "ROOT alone" if wanted == 1 else "EXPORT and ROOT"
        raise UsageError(
            f"tzrec publish: got {len(args.paths)} paths, give {needs}",
            hint="see tzrec publish --help",
        )
    start()
    from tzrec.serving.publish import publish, roll_back, versions

    root = args.paths[-1]
    if args.list:
        for version in versions(root):
            mark = "  current" if version.is_current else ""
            print(f"{version.name:<24} {version.published or 'copied by hand'}{mark}")
    elif args.rollback:
        print(roll_back(root, args.name))
    else:
        from tzrec.serving.loading import load

        print(publish(args.paths[0], root, name=args.name, keep=args.keep, load=load))
    return 0
