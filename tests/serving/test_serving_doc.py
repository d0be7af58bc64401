"""docs/serving.md says everything that there is, and nothing that there is not."""

import dataclasses
import re
from pathlib import Path

from tzrec.cli import export, publish, serve
from tzrec.cli.parser import Parser
from tzrec.serving import metrics, openapi
from tzrec.serving.app import create_app
from tzrec.serving.engine import Engine
from tzrec.serving.options import ServeOptions

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "serving.md").read_text()


def section(title):
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_all_limits():
    told = set(re.findall(r"^\| `--([a-z-]+)` \|", section("Limits"), re.MULTILINE))
    flags = {name.replace("_", "-") for name in serve._BOUNDS}
    # About other things than requests: told elsewhere on the page.
    elsewhere = {"torch-threads", "reload-seconds"}
    assert told == flags - elsewhere
    assert {name.replace("-", "_") for name in flags} <= {
        field.name for field in dataclasses.fields(ServeOptions)
    }


def test_only_flags_that_there_are():
    known = {"--help"}
    for command in (serve, publish, export):
        parser = Parser(prog="tzrec")
        command.add_arguments(parser)
        known |= set(parser.flags())
    told = set(re.findall(r"(--[a-z][a-z-]+)", TEXT))
    assert len(told) > 15
    assert told <= known


def test_all_metrics():
    told = set(re.findall(r"`(tzrec_\w+)`", section("Watching a server")))
    known = set(re.findall(r"^``(tzrec_\w+)``", metrics.__doc__, re.MULTILINE))
    assert len(known) > 5
    assert told <= known
    missing = {name for name in known - told if name != "tzrec_request_rows"}
    assert missing == set()


def test_all_routes(tmp_path):
    app = create_app(Engine(tmp_path, ServeOptions(), load=None), ServeOptions())
    routes = {route.path for route in app.routes if not route.path.startswith("/page/")}
    table = section("Routes").split("| --- |")[1]
    assert set(re.findall(r"[` ](/[a-z0-9/.]*)`", table)) == routes


def test_all_statuses():
    told = set(re.findall(r"\b[45]\d\d\b", section("Errors").split("| status |")[1]))
    assert set(openapi._ERRORS) <= told
