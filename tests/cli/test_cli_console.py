"""Logging, exit codes, what is shown of an error."""

from __future__ import annotations

import errno
import io
import logging
import re
import sys
import warnings

import pytest

from tzrec import errors
from tzrec.cli import job
from tzrec.cli.console import quiet_libraries, run_command, setup_logging


def fail(error):
    def command():
        raise error

    return command


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("ConfigError", 2),
        ("DataError", 3),
        ("FeatureError", 3),
        ("CheckpointError", 4),
        ("PlanError", 5),
        ("ExportError", 6),
        ("ServingError", 1),
        ("Unsupported", 2),
        ("MissingDependencyError", 2),
    ],
)
def test_errors_become_a_message_and_an_exit_code(name, code, capsys):
    error = getattr(errors, name)("it is wrong", hint="right it")
    assert run_command(fail(error)) == code
    assert capsys.readouterr().err == "it is wrong\n  hint: right it\n"


def test_bugs_show_their_traceback(capsys):
    assert run_command(fail(KeyError("x"))) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.rstrip().endswith("Please report the lines above.")


def test_what_the_file_system_refuses_is_no_bug(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert run_command((tmp_path / "file").mkdir) == 1
    assert capsys.readouterr().err == f"File exists: {tmp_path / 'file'}\n"
    assert run_command(fail(OSError(errno.ENOSPC, "No space left on device"))) == 1
    assert capsys.readouterr().err == "No space left on device\n"
    assert run_command((tmp_path / "none").read_text) == 1
    assert "Traceback" in capsys.readouterr().err, "a file that is not there we should have checked"


def test_interrupt_and_exit(capsys):
    assert run_command(fail(KeyboardInterrupt())) == 130
    assert run_command(fail(SystemExit(4))) == 4
    assert run_command(fail(SystemExit())) == 0
    assert run_command(lambda: None) == 0
    assert run_command(lambda: 7) == 7


def test_other_ranks_only_show_what_rank_0_cannot_know(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run_command(fail(errors.ConfigError("x"))) == 2
    assert capsys.readouterr().err == ""
    assert run_command(fail(errors.DataError("x"))) == 3
    assert capsys.readouterr().err == "[rank 1] x\n"
    monkeypatch.setenv("RANK", "nonsense")
    assert run_command(fail(errors.ConfigError("x"))) == 2
    assert capsys.readouterr().err == "x\n"


def test_debug_shows_the_traceback_of_our_errors(capsys):
    setup_logging("DEBUG")
    assert run_command(fail(errors.DataError("x"))) == 3
    assert "Traceback" in capsys.readouterr().err


def test_log_lines(monkeypatch):
    stream = io.StringIO()
    setup_logging("INFO")
    setup_logging("INFO")  # once is enough
    monkeypatch.setattr(sys, "stderr", stream)
    logging.getLogger("tzrec").info("hello")
    logging.getLogger("tzrec").debug("not shown")
    assert re.fullmatch(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\]\[INFO\] hello\n", stream.getvalue())


def test_libraries_are_quiet_unless_debugging(capsys):
    setup_logging("INFO")
    quiet_libraries()
    warnings.warn("noise", UserWarning, stacklevel=1)
    assert logging.getLogger("torchrec").level == logging.ERROR
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("rank", "level", "expected"),
    [("0", "INFO", "INFO"), ("1", "INFO", "WARNING"), ("1", "DEBUG", "DEBUG")],
)
def test_one_process_of_a_job_tells_how_it_goes(monkeypatch, rank, level, expected):
    for name, value in {
        "RANK": rank,
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "a",
        "LOG_LEVEL": level,
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(job, "prepare_process", lambda: None)
    assert job.start().rank == int(rank)
    assert logging.getLevelName(logging.getLogger("tzrec").level) == expected
