"""The HTTP application: routes, and what each does with a request.

=================  ====  ===================================================
``/v1/predict``    POST  scores of rows, or of the candidates of one user
``/v1/retrieve``   POST  the best items for users
``/v1/embed``      POST  vectors of users or items
``/v1/schema``     GET   what the model reads and gives, with examples
``/health``        GET   200 while the process lives
``/ready``         GET   200 while new requests should come, else 503
``/metrics``       GET   numbers for Prometheus
``/openapi.json``  GET   all this for programs, ``/docs`` for people
``/``              GET   the page to try the model by hand
=================  ====  ===================================================

A request is decoded for, and answered by, one version of the model.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import anyio
import numpy as np
import pyarrow as pa

from tzrec.constant import TARGET_REPEAT_INTERLEAVE_KEY
from tzrec.deploy.debug_text import DEBUG_COLUMN
from tzrec.errors import MissingDependencyError, TzrecError
from tzrec.serving import arrow, http, openapi, queries
from tzrec.serving.decode import Rows
from tzrec.serving.engine import Engine
from tzrec.serving.errors import RequestError, invalid, of_data
from tzrec.serving.metrics import Metrics
from tzrec.serving.options import ServeOptions
from tzrec.serving.servable import EMBED, ITEM_IDS, PREDICT, RETRIEVE, SCORES, Servable

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

VERSION_HEADER = "X-Tzrec-Version"
VECTORS = "vectors"
_PROTECTED = ("/v1/", "/metrics", "/openapi.json")
# Larger bodies and answers are read and written on a thread, beside the event loop.
_BYTES_INLINE, _ROWS_INLINE = 1 << 17, 1 << 12

Query = Any
Take = Callable[[int], None]
Handler = Callable[["Request", Take], Awaitable["Response"]]
T = TypeVar("T")


def create_app(
    engine: Engine, options: ServeOptions, *, is_full: Callable[[], bool] = lambda: False
) -> Starlette:
    """Returns the application.

    Args:
        engine: not started; what it does is counted from now on.
        options: limits and token.
        is_full: whether there are more connections than may be.

    Raises:
        MissingDependencyError: a package for serving is not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.middleware import Middleware
        from starlette.routing import Route
    except ImportError as error:
        raise MissingDependencyError(
            f"the server needs starlette: {error}", hint="pip install 'tzrec[serve]'"
        ) from error
    from tzrec.serving.docs import docs_routes
    from tzrec.serving.page import page_routes

    metrics = Metrics()
    engine.observer = metrics
    api = _Api(engine, options, metrics)
    app = Starlette(
        routes=[
            Route("/v1/predict", api.counted(api.predict), methods=["POST"]),
            Route("/v1/retrieve", api.counted(api.retrieve), methods=["POST"]),
            Route("/v1/embed", api.counted(api.embed), methods=["POST"]),
            Route("/v1/schema", api.schema, methods=["GET"]),
            Route("/health", api.health, methods=["GET"]),
            Route("/ready", api.ready, methods=["GET"]),
            Route("/metrics", api.metrics, methods=["GET"]),
            Route("/openapi.json", api.openapi, methods=["GET"]),
            *docs_routes(),
            *page_routes(),
        ],
        middleware=[
            Middleware(
                http.Guard,
                options=options,
                metrics=metrics,
                protected=_PROTECTED,
                is_full=is_full,
            )
        ],
        exception_handlers=http.exception_handlers(metrics),
    )
    # A redirect would send clients to whatever their Host header says.
    app.router.redirect_slashes = False
    return app


class _Api:
    """The handlers of the routes."""

    def __init__(self, engine: Engine, options: ServeOptions, metrics: Metrics) -> None:
        self._engine = engine
        self._options = options
        self._metrics = metrics
        self._bodies = http.Bodies(options)
        # A large body takes many times its size while it is read, and the interpreter all along.
        self._readers = anyio.CapacityLimiter(max(1, options.threads))

    def counted(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        """Returns a handler whose request holds its body, as far as that is bounded."""

        async def endpoint(request: Request) -> Response:
            with self._bodies.hold() as take:
                return await handler(request, take)

        return endpoint

    async def predict(self, request: Request, take: Take) -> Response:
        servable: Servable = self._engine.servable
        kind = http.accepted_answer(request)
        query = await self._read(request, take, servable, queries.predict_query, PREDICT)
        rows: Rows = query.rows
        more: dict[str, pa.Array] = {}
        with http.unless_gone(request), _Blame(rows, servable, PREDICT, self._options):
            end = self._engine.end()
            outputs = await self._scores_of(rows, servable, end)
            if query.features:
                more[DEBUG_COLUMN] = await self._engine.call(
                    servable.features_text, rows.all_columns, rows=rows.num_rows, end=end
                )
        names = [*query.outputs]
        if TARGET_REPEAT_INTERLEAVE_KEY in outputs:
            names.append(TARGET_REPEAT_INTERLEAVE_KEY)
        chosen = {name: outputs[name] for name in names}
        return await _answer(
            kind,
            servable,
            rows.num_rows,
            lambda: _scores(chosen, more, kind),
            lambda columns: {"outputs": columns},
        )

    async def _scores_of(self, rows: Rows, servable: Servable, end: float) -> dict[str, np.ndarray]:
        if not rows.num_rows:
            return servable.predict(rows.all_columns)
        if rows.context and servable.is_tiled:
            found: dict[str, np.ndarray] = await self._engine.call(
                servable.predict_request, rows.context, rows.columns, rows=rows.num_rows, end=end
            )
            return found
        scored = await self._engine.predict(
            rows.all_columns, rows=rows.num_rows, servable=servable, end=end
        )
        return scored.outputs

    async def retrieve(self, request: Request, take: Take) -> Response:
        servable: Servable = self._engine.servable
        kind = http.accepted_answer(request)
        query = await self._read(request, take, servable, queries.retrieve_query, RETRIEVE)
        rows: Rows = query.rows
        with http.unless_gone(request), _Blame(rows, servable, RETRIEVE, self._options):
            found = await self._engine.call(
                servable.retrieve, rows.all_columns, query.k, query.exclude, rows=rows.num_rows
            )
        ids, scores = found.columns()
        columns = {ITEM_IDS: ids, SCORES: scores}
        return await _answer(kind, servable, rows.num_rows, lambda: columns)

    async def embed(self, request: Request, take: Take) -> Response:
        servable: Servable = self._engine.servable
        kind = http.accepted_answer(request)
        query = await self._read(request, take, servable, queries.embed_query)
        rows: Rows = query.rows
        what = f"{EMBED}/{query.tower}"
        with http.unless_gone(request), _Blame(rows, servable, what, self._options):
            vectors = await self._engine.call(
                servable.embed, query.tower, rows.all_columns, rows=rows.num_rows
            )
        named = {VECTORS: next(iter(vectors.values()))}
        return await _answer(
            kind,
            servable,
            rows.num_rows,
            lambda: _scores(named, {}, kind),
            lambda columns: {"tower": query.tower, **columns},
        )

    async def schema(self, request: Request) -> Response:
        return http.json_response(openapi.full_schema(self._engine.servable, self._options))

    async def openapi(self, request: Request) -> Response:
        return http.json_response(openapi.document(self._engine.servable, self._options))

    async def health(self, request: Request) -> Response:
        return http.json_response({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        state = self._engine.state()
        if not state.is_ready:
            raise RequestError(503, "not_ready", state.reason)
        return http.json_response({"status": "ready", "version": state.version})

    async def metrics(self, request: Request) -> Response:
        self._engine.tell_state()
        text = await anyio.to_thread.run_sync(self._metrics.text)
        return http.response(text, kind=self._metrics.content_type)

    async def _read(
        self,
        request: Request,
        take: Take,
        servable: Servable,
        make: Callable[[queries.Asked, Servable], Query],
        what: str = "",
    ) -> Query:
        kind = http.content_type(request)
        pairs = request.query_params.multi_items()
        if kind == http.JSON and pairs:
            raise invalid(
                "unknown_field",
                "with JSON all arguments are in the body, none behind the path",
                pairs[0][0][:40],
            )
        body = await http.read_body(request, self._options, take)

        def read() -> Query:
            if kind == http.JSON:
                signature = servable.signatures.get(what)
                asked = queries.asked_in_json(body, self._options, signature)
            else:
                asked = queries.asked_in_arrow(body, pairs, self._options)
            return make(asked, servable)

        query = await _aside(len(body) > _BYTES_INLINE, read, self._readers)
        self._metrics.on_rows(request.scope["path"], query.rows.num_rows)
        return query


class _Blame:
    """Turns the model's complaint about a value into an answer that names the field."""

    def __init__(self, rows: Rows, servable: Servable, what: str, options: ServeOptions) -> None:
        self._rows = rows
        self._signature = servable.signatures[what]
        # Rows of a request that went in slices are counted from the slice.
        self._knows_row = rows.num_rows <= options.max_batch_rows

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, TzrecError):
            refused = of_data(error, self._where)
            if refused is not None:
                raise refused from error

    def _where(self, name: str, row: int | None) -> str:
        column = self._signature.columns_of_features.get(name, name)
        return self._rows.where(column, row if self._knows_row else None)


async def _aside(
    is_large: bool, work: Callable[[], T], limiter: anyio.CapacityLimiter | None = None
) -> T:
    """Does work at once, or on a thread where it takes long."""
    return await anyio.to_thread.run_sync(work, limiter=limiter) if is_large else work()


def _scores(outputs: dict[str, np.ndarray], more: dict[str, pa.Array], kind: str) -> dict[str, Any]:
    """Returns the columns of an answer: as Arrow, or as JSON takes them."""
    if kind == http.JSON and TARGET_REPEAT_INTERLEAVE_KEY not in outputs:
        return {name: np.ascontiguousarray(value) for name, value in outputs.items()} | more
    return arrow.answer_columns(outputs) | more


async def _answer(
    kind: str,
    servable: Servable,
    num_rows: int,
    make: Callable[[], dict[str, Any]],
    wrap: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> Response:
    """Returns an answer of columns.

    Args:
        kind: content type.
        servable: that answered.
        num_rows: of the request.
        make: makes the columns: Arrow or NumPy arrays.
        wrap: columns → what JSON has beside the version.
    """

    def write() -> Response:
        columns = make()
        headers = {VERSION_HEADER: quote(servable.version)}
        if kind != http.JSON:
            body = arrow.to_stream(columns, servable.version)
            return http.response(body, kind=kind, headers=headers)
        plain = {
            name: value.to_pylist() if isinstance(value, pa.Array) else value
            for name, value in columns.items()
        }
        head = {"version": servable.version, "num_rows": num_rows}
        return http.json_response(head | wrap(plain), headers=headers)

    return await _aside(num_rows > _ROWS_INLINE, write)
