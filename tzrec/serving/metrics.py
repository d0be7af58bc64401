"""Numbers of a server for Prometheus.

==============================  =========  ======================================================
``tzrec_request_seconds``       histogram  ``route``, ``status``: from the first byte to the last
``tzrec_request_rows``          histogram  ``route``: rows of a request
``tzrec_requests_in_flight``    gauge
``tzrec_batch_rows``            histogram  rows that went through the model at once
``tzrec_batch_requests``        histogram  requests merged into them
``tzrec_batch_seconds``         histogram  time of the model
``tzrec_queue_seconds``         histogram  time that the oldest request of a batch waited
``tzrec_queue_rows``            gauge      rows that wait now
``tzrec_faults_total``          counter    ``code``: overloaded, deadline_exceeded, not_ready,
                                           too_many_connections
``tzrec_reloads_total``         counter    ``result``: loaded or failed
``tzrec_reload_seconds``        histogram  time to load and check a version
``tzrec_ready``                 gauge      workers to which new requests should come
``tzrec_model_info``            gauge      ``version``: workers that answer with it
==============================  =========  ======================================================

Several workers share what they count through files in a directory; the environment variable
``PROMETHEUS_MULTIPROC_DIR`` names it before this module is imported, as prometheus-client wants.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tzrec.errors import MissingDependencyError
from tzrec.serving.observer import Observer

_SECONDS = (
    0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10,
)  # fmt: skip
_RELOAD_SECONDS = (0.5, 1, 2, 5, 10, 20, 60, 300)
_ROWS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 100_000)
_REQUESTS = (1, 2, 4, 8, 16, 32, 64, 128)
_MODEL_INFO = "model_info"


class Metrics(Observer):
    """Counts what happens; one a process. Threads may share it.

    Raises:
        MissingDependencyError: prometheus-client is not installed.

    Attributes:
        content_type: of `text`.
    """

    def __init__(self) -> None:
        prometheus = self._library = _prometheus()
        from prometheus_client import values

        self.content_type: str = prometheus.CONTENT_TYPE_LATEST
        self._registry = prometheus.CollectorRegistry()
        self._is_shared = values.ValueClass is not values.MutexValue
        self._request_seconds = self._histogram(
            "request_seconds", "Time of requests.", _SECONDS, ["route", "status"]
        )
        self._request_rows = self._histogram("request_rows", "Rows of requests.", _ROWS, ["route"])
        self._in_flight = self._gauge("requests_in_flight", "Requests that are being answered.")
        self._batch_rows = self._histogram("batch_rows", "Rows of model calls.", _ROWS)
        self._batch_requests = self._histogram(
            "batch_requests", "Requests merged into model calls.", _REQUESTS
        )
        self._batch_seconds = self._histogram("batch_seconds", "Time of model calls.", _SECONDS)
        self._queue_seconds = self._histogram(
            "queue_seconds", "Time that the oldest request of a model call waited.", _SECONDS
        )
        self._queue_rows = self._gauge("queue_rows", "Rows that wait.")
        self._faults = self._counter("faults", "Requests refused or given up.", ["code"])
        self._reloads = self._counter("reloads", "Versions loaded, or failed.", ["result"])
        self._reload_seconds = self._histogram(
            "reload_seconds", "Time to load and check a version.", _RELOAD_SECONDS
        )
        self._ready = self._gauge("ready", "Workers to which new requests should come.")
        self._model = self._gauge(_MODEL_INFO, "Workers that answer with a version.", ["version"])
        self._version = ""

    def on_request(self, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._request_seconds.labels(route, str(status)).observe(seconds)

    def on_rows(self, route: str, rows: int) -> None:
        """A request was read: it has so many rows."""
        self._request_rows.labels(route).observe(rows)

    def on_flight(self, change: int) -> None:
        """A request begins (1) or ends (-1)."""
        self._in_flight.inc(change)

    def on_state(self, *, version: str, is_ready: bool, queued_rows: int) -> None:
        """How the engine is; told again and again."""
        self._queue_rows.set(queued_rows)
        self._ready.set(int(is_ready))
        if version != self._version:
            if self._version:
                self._model.labels(self._version).set(0)
                if not self._is_shared:  # files keep what was in them, see `_Current`
                    self._model.remove(self._version)
            self._version = version
        if version:
            self._model.labels(version).set(1)

    def on_batch(self, *, requests: int, rows: int, seconds: float, waited: float) -> None:
        """A model call ended."""
        self._batch_requests.observe(requests)
        self._batch_rows.observe(rows)
        self._batch_seconds.observe(seconds)
        self._queue_seconds.observe(waited)

    def on_fault(self, code: str) -> None:
        """A request was refused, or given up."""
        self._faults.labels(code).inc()

    def on_reload(self, version: str, *, is_loaded: bool, seconds: float) -> None:
        """A version was loaded, or failed."""
        self._reloads.labels("loaded" if is_loaded else "failed").inc()
        self._reload_seconds.observe(seconds)

    def text(self) -> bytes:
        """Returns all numbers, of all workers where there are several."""
        registry = self._registry
        if self._is_shared:
            from prometheus_client import multiprocess

            registry = _Current(multiprocess.MultiProcessCollector(None))
        return bytes(self._library.generate_latest(registry))

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], labels: list[str] | None = None
    ) -> Any:
        return self._library.Histogram(
            f"tzrec_{name}", text, labels or (), buckets=buckets, registry=self._registry
        )

    def _gauge(self, name: str, text: str, labels: list[str] | None = None) -> Any:
        return self._library.Gauge(
            f"tzrec_{name}",
            text,
            labels or (),
            registry=self._registry,
            multiprocess_mode="livesum",
        )

    def _counter(self, name: str, text: str, labels: list[str]) -> Any:
        return self._library.Counter(f"tzrec_{name}", text, labels, registry=self._registry)


class _Current:
    """Leaves out the versions with which no worker answers any more: they would be without end."""

    def __init__(self, collector: Any) -> None:
        self._collector = collector

    def collect(self) -> Iterator[Any]:
        """Yields the families of metrics."""
        for family in self._collector.collect():
            if family.name == f"tzrec_{_MODEL_INFO}":
                family.samples = [sample for sample in family.samples if sample.value]
            yield family


def _prometheus() -> Any:
    try:
        import prometheus_client
    except ImportError as error:
        raise MissingDependencyError(
            f"the server needs prometheus-client: {error}", hint="pip install 'tzrec[serve]'"
        ) from error
    return prometheus_client
