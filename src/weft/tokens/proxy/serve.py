"""A proxy from files, and its server."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import uvicorn

from weft.core.errors import FileError, InputError
from weft.tokens.budgets.budget import Budget
from weft.tokens.budgets.budgets_file import BudgetsFile
from weft.tokens.prices import PriceBook
from weft.tokens.proxy.app import Proxy, units_of
from weft.tokens.proxy.desk import Desk, Ended
from weft.tokens.proxy.exchange import House
from weft.tokens.proxy.grouped import GroupedStore
from weft.tokens.proxy.keys import Keyring
from weft.tokens.proxy.metrics import Metrics
from weft.tokens.proxy.retries import Retries
from weft.tokens.proxy.settings import Settings
from weft.tokens.proxy.shadow import ShadowPrices
from weft.tokens.proxy.spans import Spans
from weft.tokens.proxy.terms import KNOWN_UNITS, Tariff, foreign
from weft.tokens.proxy.upstream import Upstream

__all__ = ["make_proxy", "make_server", "run_server"]

SWITCH_S = 0.001
"""How soon a thread that waits gets its turn [s]. Chosen: Python's own 5 ms would be the longest
wait of all, and shorter ones cost more changes than they save."""
YOUNG = 10_000
"""Objects after which garbage is looked for. Chosen: those of ten calls, not of less than one."""
GRACE_S = 30
"""How long calls that are under way may take to end when the server is told to stop [s]. Chosen."""


def make_proxy(
    settings: Settings,
    file: BudgetsFile,
    *,
    where: str | Path,
    book: PriceBook | None = None,
    keys: Mapping[str, str] | None = None,
    ledger: str | Path | None = None,
    place: str = "proxy",
    spans: str = "",
    style: str = "",
    is_public: bool = False,
) -> Proxy:
    """A proxy that spends from a budget.

    Args:
        settings: how it is set up.
        file: caps, and keys.
        where: the budget is kept: a file, an address of Redis, or ":memory:".
        book: prices; None where money is not capped.
        keys: more keys: paths by digest.
        ledger: file of the ledger; None to keep none.
        place: name under which the ledger counts what it booked.
        spans: a file or a collector's address for spans; empty for none.
        style: CSS of the live page.
        is_public: whether metrics and the page are for everybody.

    Raises:
        InputError: a cap is in something that calls are not priced in.
        FileError, NodeError: the budget cannot be opened.
    """
    budget, store = _opened(file, where, durable=settings.durable)
    shadow, metrics = ShadowPrices(), Metrics()

    @lru_cache(maxsize=10_000)
    def units(node: str) -> tuple[str, ...]:
        return units_of(file, node)

    desk = Desk(
        budget,
        store,
        in_loop="://" not in str(where),
        ledger=ledger,
        place=place,
        durable=settings.durable,
        settled=lambda ended: _note(ended, shadow, metrics),
    )
    house = House(
        settings=settings,
        desk=desk,
        tariff=Tariff(book, settings.provider, settings.alpha),
        upstream=Upstream(settings),
        units=units,
        shadow=shadow,
        metrics=metrics,
        retries=Retries(),
        spans=Spans(spans) if spans else None,
    )
    keyring = Keyring({**file.keys, **(keys or {})})
    return Proxy(house, keyring, style=style, is_public=is_public)


def _note(ended: Ended, shadow: ShadowPrices, metrics: Metrics) -> None:
    """Take in that a call was settled."""
    shadow.settled(ended.accounts, ended.settled.spent, time.time())
    if ended.settled.overruns:
        metrics.add("weft_overruns_total", node=ended.settled.node)


def _opened(
    file: BudgetsFile, where: str | Path, *, durable: bool
) -> tuple[Budget, GroupedStore | None]:
    """The budget; a file of SQLite so that operations can share a transaction."""
    capped = {cap.most.currency for caps in file.nodes.values() for cap in caps}
    for unit in sorted(capped - KNOWN_UNITS):
        raise foreign(unit)
    budget = file.open(where, durable=durable)
    if str(where) == ":memory:" or "://" in str(where):
        return budget, None
    budget.close()
    store = GroupedStore(where, durable=durable)
    return Budget(store), store


def make_server(proxy: Proxy, *, host: str = "127.0.0.1", port: int = 8080) -> uvicorn.Server:
    """A server for a proxy."""
    config = uvicorn.Config(
        proxy,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_S,
        timeout_keep_alive=75,
    )
    return uvicorn.Server(config)


def run_server(server: uvicorn.Server) -> None:
    """Serve until told to stop, by Ctrl-C or SIGTERM.

    Raises:
        FileError: it could not begin.
    """
    sys.setswitchinterval(SWITCH_S)
    # What is there now stays: it need not be looked through again and again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG)
    try:
        server.run()
    except KeyboardInterrupt:
        return
    except SystemExit as error:
        if server.started:
            return  # told to stop, and all is written
        raise FileError(
            need="an address that is free, and files that can be opened",
            got=f"{server.config.host}:{server.config.port}",
            hint="--port names another; what went wrong stands above",
        ) from error
    if not server.started:
        raise InputError(
            need="a proxy that starts", got="one that did not", hint="what is wrong stands above"
        )
