"""`weft tokens serve`: a proxy that keeps clients within budgets."""

from __future__ import annotations

import argparse
import os
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from weft.cli.command import Command
from weft.cli.console import Console
from weft.core.errors import InputError

if TYPE_CHECKING:
    from weft.tokens.budgets.budgets_file import BudgetsFile

__all__ = ["ACTION"]

KEY_VARIABLE = "WEFT_UPSTREAM_KEY"
MOST_PORT = 65535
"""Source: RFC 9293, section 3.1: ports have 16 bits."""
_LOCAL = ("127.0.0.1", "localhost", "::1")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--upstream", metavar="URL", help="the provider, in OpenAI's form")
    parser.add_argument("--budgets", metavar="FILE", type=Path, help="caps, and keys, in YAML")
    parser.add_argument(
        "--store",
        metavar="PLACE",
        help="where the budget is kept: a file, redis://... (the file of caps, ending in .db)",
    )
    parser.add_argument("--ledger", metavar="FILE", help="book calls there (no ledger)")
    parser.add_argument("--keys", metavar="FILE", type=Path, help="more keys, in a file of theirs")
    parser.add_argument(
        "--new-key", metavar="NODE", help="add a key to --keys, print it this once, and end"
    )
    parser.add_argument("--prices", metavar="BOOK", help="genai, litellm, or a file of prices")
    parser.add_argument("--provider", metavar="NAME", default="", help="whose prices hold")
    parser.add_argument("--host", default="127.0.0.1", help="to listen at (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8080, help="to listen at (8080)")
    parser.add_argument(
        "--key-variable",
        metavar="NAME",
        default=KEY_VARIABLE,
        help=f"of the environment, that holds the provider's key ({KEY_VARIABLE})",
    )
    parser.add_argument(
        "--max-tokens", metavar="N", type=int, help="longest answer where none is asked for (16384)"
    )
    parser.add_argument(
        "--limit-field",
        choices=("max_completion_tokens", "max_tokens"),
        default="max_completion_tokens",
        help="by which chats are held to a length that name none",
    )
    parser.add_argument("--first", metavar="S", type=float, help="patience for an answer (600)")
    parser.add_argument("--between", metavar="S", type=float, help="within a stream (60)")
    parser.add_argument("--spans", metavar="PLACE", default="", help="OTLP: a file or a collector")
    parser.add_argument("--durable", action="store_true", help="survive power cuts, too")
    parser.add_argument(
        "--public", action="store_true", help="page and metrics for other machines, too"
    )


def _execute(args: argparse.Namespace, console: Console) -> None:
    if args.new_key is not None:
        _new_key(args, console)
        return
    if not 0 < args.port <= MOST_PORT:
        raise InputError(
            need=f"a port from 1 to {MOST_PORT}",
            got=str(args.port),
            hint="--port 8080, for example",
        )
    for name in ("upstream", "budgets"):
        if getattr(args, name) is None:
            raise InputError(need=f"--{name}", got="none", hint=ACTION.example)
    try:
        from weft.tokens.proxy.serve import make_proxy, make_server, run_server
    except ImportError as error:
        raise InputError(
            need="the libraries of the proxy", got=str(error), hint="pip install 'weft[proxy]'"
        ) from error
    from weft.tokens.budgets.budgets_file import read_budgets
    from weft.tokens.prices import open_book
    from weft.tokens.proxy.keys import read_keys
    from weft.tokens.proxy.settings import Settings

    file = read_budgets(args.budgets)
    keys = {} if args.keys is None else read_keys(args.keys, file.nodes)
    if not (file.keys or keys) and args.host not in _LOCAL:
        raise InputError(
            need="keys, where other machines may ask",
            got=f"none, at {args.host}",
            hint="--keys FILE --new-key NODE makes one; or leave --host out",
        )
    _require_prices(args, file)
    optional = {"max_tokens": args.max_tokens, "first_s": args.first, "between_s": args.between}
    settings = Settings(
        upstream=args.upstream,
        upstream_key=os.environ.get(args.key_variable, ""),
        provider=args.provider,
        limit_field=args.limit_field,
        durable=args.durable,
        **{name: value for name, value in optional.items() if value is not None},
    )
    proxy = make_proxy(
        settings,
        file,
        where=args.store or args.budgets.with_suffix(".db"),
        book=None if args.prices is None else open_book(args.prices),
        keys=keys,
        ledger=args.ledger,
        place=f"proxy {args.host}:{args.port} to {settings.base}",
        spans=args.spans,
        style=resources.files("weft.report").joinpath("style.css").read_text(),
        is_public=args.public,
    )
    console.line(f"serving {settings.base} at http://{args.host}:{args.port}/v1")
    console.line(f"budgets and burn: http://{args.host}:{args.port}/")
    run_server(make_server(proxy, host=args.host, port=args.port))
    console.result({"served": settings.base})


def _require_prices(args: argparse.Namespace, file: BudgetsFile) -> None:
    units = {cap.most.currency for caps in file.nodes.values() for cap in caps}
    if args.prices is None and "usd" in units:
        raise InputError(
            need="--prices, since dollars are capped",
            got=f"none, for {args.budgets}",
            hint="--prices genai, or a file of prices; or cap tokens and calls",
        )


def _new_key(args: argparse.Namespace, console: Console) -> None:
    from weft.tokens.proxy.keys import add_key

    if args.keys is None:
        raise InputError(need="--keys, the file to add it to", got="none", hint="--keys keys.yaml")
    key = add_key(args.keys, args.new_key)
    console.line(f"{key}")
    console.result({"key": key, "node": args.new_key, "file": str(args.keys)})


ACTION = Command(
    name="serve",
    summary="keep clients within budgets: a proxy that reserves, forwards and settles",
    example="example: weft tokens serve --upstream http://127.0.0.1:8000 --budgets budgets.yaml"
    " --prices genai --ledger ledger.db",
    add_arguments=_add_arguments,
    execute=_execute,
)
