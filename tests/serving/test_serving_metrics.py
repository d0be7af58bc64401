"""Metrics of several processes: whichever is asked answers for all."""

import os
import subprocess
import sys

from prometheus_client.parser import text_string_to_metric_families

CODE = """
from tzrec.serving.metrics import Metrics

metrics = Metrics()
for _ in range({requests}):
    metrics.on_flight(1)
    metrics.on_request("/v1/predict", 200, 0.02)
    metrics.on_rows("/v1/predict", 5)
metrics.on_batch(requests=2, rows=10, seconds=0.01, waited=0.001)
metrics.on_reload("v2", is_loaded=False, seconds=1.0)
for version in ("v1", "v2"):
    metrics.on_state(version=version, is_ready=True, queued_rows={requests})
{more}
print(metrics.text().decode())
"""


def run(shared, requests, more=""):
    environment = dict(os.environ)  # noqa: TID251
    if shared is not None:
        environment["PROMETHEUS_MULTIPROC_DIR"] = str(shared)
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(requests=requests, more=more)],
        env=environment, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(done.stdout)
        for sample in family.samples
    }


def test_one_process():
    numbers = run(None, 3)
    assert numbers["tzrec_request_seconds_count", "/v1/predict", "200"] == 3
    assert numbers["tzrec_requests_in_flight",] == 3
    # A server that runs for long has many versions behind it: they are no series any more.
    assert ("tzrec_model_info", "v1") not in numbers
    assert numbers["tzrec_model_info", "v2"] == 1
    assert numbers["tzrec_reloads_total", "failed"] == 1


def test_several_processes(tmp_path):
    """The first has ended: what it counted stays, what it was in the middle of does not."""
    run(tmp_path, 3, "import os; from prometheus_client import multiprocess\n"
        f"multiprocess.mark_process_dead(os.getpid(), {str(tmp_path)!r})")  # fmt: skip
    numbers = run(tmp_path, 4)
    assert numbers["tzrec_request_seconds_count", "/v1/predict", "200"] == 7
    assert numbers["tzrec_request_rows_sum", "/v1/predict"] == 35
    assert numbers["tzrec_batch_rows_sum",] == 20
    assert numbers["tzrec_reloads_total", "failed"] == 2
    assert numbers["tzrec_requests_in_flight",] == 4
    assert numbers["tzrec_queue_rows",] == 4
    assert numbers["tzrec_ready",] == 1
    assert ("tzrec_model_info", "v1") not in numbers
    assert numbers["tzrec_model_info", "v2"] == 1
    numbers = run(tmp_path, 1, 'metrics.on_state(version="v1", is_ready=True, queued_rows=0)')
    assert numbers["tzrec_model_info", "v1"] == numbers["tzrec_model_info", "v2"] == 1
