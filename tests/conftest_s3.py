"""An S3 server of this machine: `s3_url` is an empty bucket on it."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator

import fsspec
import pytest

_buckets = itertools.count()


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """URL of a server that lives as long as the tests; nothing leaves this machine."""
    server = pytest.importorskip("moto.server", reason="moto[s3,server] is not installed")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    thread = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    thread.start()
    try:
        host, port = thread.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        thread.stop()


@pytest.fixture
def s3_url(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """``s3://bucket`` of a new bucket that every path of this process and its children reaches.

    The endpoint is told to fsspec (and so to s3fs), by its config here and by environment
    variables, which fsspec reads at import, to processes started meanwhile.
    """
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")
    access = {"endpoint_url": s3_endpoint, "key": "test", "secret": "test"}
    monkeypatch.setitem(fsspec.config.conf, "s3", access)
    for name, value in access.items():
        monkeypatch.setenv(f"FSSPEC_S3_{name.upper()}", value)
    s3fs.S3FileSystem.clear_instance_cache()
    bucket = f"tzrec-{next(_buckets)}"
    fsspec.filesystem("s3").mkdir(bucket)
    yield f"s3://{bucket}"
    s3fs.S3FileSystem.clear_instance_cache()
