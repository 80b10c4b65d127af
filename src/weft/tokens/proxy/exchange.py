"""One call: read, reserve, forward, settle.

Whatever happens, a call that was begun is ended once: with the provider's report where that can be
believed, as an interval where it broke off, and for nothing where nothing can have been billed.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

from weft.core.errors import FileError, InputError, WeftError
from weft.tokens.adapters.envelope import tier_name
from weft.tokens.budgets.records import Handle
from weft.tokens.budgets.refusal import BudgetError
from weft.tokens.call import Call, Status
from weft.tokens.money import Money
from weft.tokens.proxy.answer import Answer, Part
from weft.tokens.proxy.desk import Begin, Begun, Desk, End
from weft.tokens.proxy.events import Events, event_of
from weft.tokens.proxy.metrics import Metrics
from weft.tokens.proxy.problems import (
    Problem,
    bad_request,
    broken_upstream,
    no_room,
    trouble,
)
from weft.tokens.proxy.request import Api, Request, read_request
from weft.tokens.proxy.retries import Kept, Retries
from weft.tokens.proxy.settings import Settings
from weft.tokens.proxy.shadow import ShadowPrices
from weft.tokens.proxy.spans import Spans, span_of
from weft.tokens.proxy.terms import Tariff, Terms
from weft.tokens.proxy.upstream import Connection, NeverSent, Upstream, passed_on
from weft.tokens.proxy.verdict import Verdict, judge
from weft.tokens.usage import Usage

__all__ = ["PATHS", "Exchange", "House", "Receive", "Send"]

Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]

PATHS = {"/v1/chat/completions": Api.CHAT, "/v1/responses": Api.RESPONSES}
SOURCE = "weft"
"""Whose ids the ledger's calls have."""
_STREAM = b"text/event-stream"
_NAMES = {"agent": "x-weft-agent", "task": "x-weft-task", "session": "x-weft-session"}
"""Headers in which clients say for what a call is."""
_LONGEST_NAME = 200
"""Characters that are kept of what a client says a call is for. Chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """What all calls share."""

    settings: Settings
    desk: Desk
    tariff: Tariff
    upstream: Upstream
    units: Callable[[str], Sequence[str]]
    shadow: ShadowPrices
    metrics: Metrics
    retries: Retries
    spans: Spans | None = None


class Exchange:
    """See the module.

    Args:
        house: what all calls share.
        path: of the request, one of PATHS.
        node: that pays.
        headers: of the request, in lower case.
        receive, send: of ASGI.
    """

    def __init__(
        self,
        house: House,
        path: str,
        node: str,
        headers: Mapping[str, str],
        receive: Receive,
        send: Send,
    ) -> None:
        self._house, self._path, self._api, self._node = house, path, PATHS[path], node
        self._headers, self._receive, self._send = headers, receive, send
        self._id = uuid.uuid4().hex
        self._answer = Answer(self._api)
        self._began, self._waited = time.time(), 0.0
        self._clock = time.perf_counter()
        self._gone = self._is_late = False
        self._is_closed = self._has_started = self._is_over = False
        self._status, self._said, self._sent_headers = 0, [b""], Headers()

    async def run(self, raw: bytes) -> None:
        """Make the call, and answer.

        Raises:
            Problem: nothing was answered yet, and this is to be.
        """
        key = self._headers.get("idempotency-key", "")
        if not key:
            await self._run(raw)
            return
        kept = self._house.retries.begin(self._node, key, self._path.encode() + raw)
        if kept is not None:
            self._status = kept.status
            await self._start([*kept.headers, (b"x-weft-again", b"true")])
            await self._end(kept.body)
            return
        done: Kept | None = None
        try:
            await self._run(raw)
            if self._answer.is_whole and not self._gone and not self._answer.failure:
                body = b"".join(self._said)
                done = Kept(status=self._status, headers=self._sent_headers, body=body)
        finally:
            self._house.retries.end(self._node, key, done)

    async def _run(self, raw: bytes) -> None:
        self._request, self._terms = self._asked(raw)
        begun = await self._begun()
        self._handle, self._accounts = begun.handle, begun.accounts
        self._limit = self._terms.limit(begun.handle.held)
        self._house.metrics.flying += 1
        try:
            await self._watched()
        except Problem as problem:
            await self._failed(problem)
        finally:
            self._close(Status.ABORTED, error="internal")
            self._house.metrics.flying -= 1
            self._house.metrics.took(time.perf_counter() - self._clock - self._waited)

    def _asked(self, raw: bytes) -> tuple[Request, Terms]:
        house = self._house
        try:
            request = read_request(self._api, raw, house.settings)
            return request, house.tariff.terms(request, self._node, house.units(self._node))
        except InputError as error:
            raise bad_request(error) from error

    async def _begun(self) -> Begun:
        house, terms = self._house, self._terms
        if house.desk.trouble:
            raise trouble(house.desk.trouble)
        begin = Begin(
            node=self._node,
            least=terms.least,
            most=terms.most,
            worst=self._worst,
        )
        answer = house.desk.begin(begin)
        try:
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            answer.add_done_callback(self._not_wanted)
            raise
        except BudgetError as error:
            accounts = await house.desk.accounts(self._node)
            raise no_room(error, accounts, time.time()) from error
        except FileError as error:
            raise trouble(str(error)) from error
        except InputError as error:  # amounts beyond what can be counted
            raise bad_request(error) from error

    def _worst(self, handle: Handle) -> dict[str, Any]:
        """The call if nothing more is heard of it, as `call_plain` would say it."""
        terms, model = self._terms, self._request.model.lower()
        read = [0, terms.input_bound]
        written = [0, terms.limit(handle.held) * terms.choices]
        usage = {"fresh": read, "text": written, "input": read, "output": written}
        usage |= {"audio_in": read} if terms.hears else {}
        usage |= {"audio_out": written} if terms.speaks else {}
        return {
            "weft": "call",
            "id": self._id,
            "source": SOURCE,
            "at": self._began,
            "model": model,
            "provider": self._house.tariff.provider_of(model),
            "status": Status.ABORTED.value,
            "payer": self._node,
            **self._said_for(),
            "labels": {"error": "killed"},
            "usage": usage,
        }

    def _said_for(self) -> dict[str, str]:
        """What the client says the call is for."""
        headers = self._headers
        return {
            name: headers[header][:_LONGEST_NAME]
            for name, header in _NAMES.items()
            if header in headers
        }

    def _not_wanted(self, answer: asyncio.Future[Begun]) -> None:
        if not answer.cancelled() and answer.exception() is None:
            self._handle = answer.result().handle
            self._close(Status.FAILED, nothing=True, error="client_gone")

    async def _watched(self) -> None:
        """Forward, as long as the client is there and time is left."""
        task = asyncio.current_task()
        assert task is not None
        total_s = self._house.settings.total_s
        timer = asyncio.get_running_loop().call_later(total_s, self._stop, task)
        watcher = asyncio.create_task(self._watch(task))
        try:
            await self._forward()
        except asyncio.CancelledError:
            if self._is_late:
                task.uncancel()
                what = f"no end within {total_s:g} s"
                raise broken_upstream(what, status=504, code="upstream_timeout") from None
            self._close(Status.ABORTED, error="client_gone")
            if not self._gone:
                raise
            task.uncancel()
        finally:
            timer.cancel()
            watcher.cancel()

    async def _watch(self, task: asyncio.Task[None]) -> None:
        """Stop when the client is gone."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._stop(task, is_gone=True)

    def _stop(self, task: asyncio.Task[None], *, is_gone: bool = False) -> None:
        """Break off, unless that has happened or all is done."""
        if not (self._is_over or self._gone or self._is_late):
            self._gone, self._is_late = is_gone, not is_gone
            task.cancel()

    async def _forward(self) -> None:
        body = self._request.body(self._limit)
        upstream = self._house.upstream
        asked = time.perf_counter()
        try:
            async with upstream.sent("POST", self._path, body, self._headers) as came:
                self._waited += time.perf_counter() - asked
                if came.status != 200:
                    await self._refused(came)
                elif came.header(b"content-type").startswith(_STREAM):
                    await self._stream(came)
                else:
                    await self._whole(came)
        except NeverSent as error:
            self._close(Status.FAILED, nothing=True, error="no_connection")
            raise broken_upstream(str(error), code="no_connection") from error

    async def _refused(self, came: Connection) -> None:
        """The provider says no, and bills nothing."""
        body = await self._house.upstream.whole(came)
        await self._closed(Status.FAILED, nothing=True, error=str(came.status))
        if came.status < 400:
            raise broken_upstream(f"the provider answers with status {came.status}")
        if came.status in (401, 403):
            # Its words may show a part of the key.
            raise broken_upstream("the provider does not take the proxy's key")
        self._status = came.status
        await self._start(passed_on(came.headers))
        await self._end(body)

    async def _whole(self, came: Connection) -> None:
        asked = time.perf_counter()
        body = await self._house.upstream.whole(came)
        self._waited += time.perf_counter() - asked
        plain = event_of(body)
        if plain is None:
            self._answer.usage = None
            self._answer.is_whole = True
        else:
            self._answer.whole(plain)
        await self._closed(Status.DONE)
        self._status = came.status
        headers = [*passed_on(came.headers), (b"content-length", str(len(body)).encode())]
        await self._start([*headers, *self._told(self._spent)])
        await self._end(body)

    async def _stream(self, came: Connection) -> None:
        """Pass events on as they come; the last of them once all is settled."""
        answer, events, last = self._answer, Events(), list[bytes]()
        hides = self._api is Api.CHAT and not self._request.wants_usage
        self._status = came.status
        await self._start([*passed_on(came.headers), *self._told()])
        most = self._house.settings.largest_bytes
        asked = time.perf_counter()
        while data := await self._house.upstream.piece(came):
            self._waited += time.perf_counter() - asked
            out: list[bytes] = []
            for event in events.feed(data):
                part = answer.event(event) if not last else Part.LAST
                if part is Part.LAST:
                    last.append(event)
                elif not (part is Part.USAGE and hides):
                    out.append(event)
            if out:
                await self._more(b"".join(out))
            if len(events.rest) + sum(map(len, last)) > most:
                raise broken_upstream(f"an event of more than {most} bytes")
            asked = time.perf_counter()
        if events.rest:
            part = answer.event(events.rest)
            if not (part is Part.USAGE and hides):
                last.append(events.rest)
        await self._closed(Status.DONE if answer.is_whole else Status.ABORTED)
        await self._end(b"".join(last))

    def _told(self, spent: Sequence[Money] | None = None) -> Headers:
        """Headers about the budget: as it stood when the call began, less what this one spent."""
        back: dict[str, int] = {}
        shown = [(b"x-weft-call", self._id)]
        if spent is None:
            shown.append((b"x-weft-held", ", ".join(map(str, self._handle.held))))
        else:
            shown.append((b"x-weft-spent", ", ".join(map(str, spent))))
            paid = {own.currency: own.nano for own in spent}
            # A call that cost something is also the one call that was held, where calls are capped.
            for own in self._handle.held:
                back[own.currency] = own.nano - paid.get(own.currency, own.nano if paid else 0)
        left: dict[str, int] = {}
        for account in self._accounts:
            unit = account.unit
            now = account.left + back.get(unit, 0)
            left[unit] = min(left.get(unit, now), now)
        shown.append((b"x-weft-left", ", ".join(str(Money(n, u)) for u, n in left.items())))
        if self._limit < self._request.wanted:
            shown.append((b"x-weft-max-tokens", str(self._limit)))
        price = self._house.shadow.price(self._accounts)
        if price is not None:
            shown.append((b"x-weft-price", f"{price:.4g}"))
        return [(name, value.encode()) for name, value in shown]

    async def _failed(self, problem: Problem) -> None:
        """Something broke off: settle, and say so however the answer was begun."""
        await self._closed(Status.ABORTED, error=problem.code)
        if not self._has_started:
            raise problem
        await self._end(b"data: " + problem.body() + b"\n\n")

    async def _closed(self, status: Status, *, nothing: bool = False, error: str = "") -> None:
        """End the call, and wait until that is safe."""
        answer = self._close(status, nothing=nothing, error=error)
        if answer is not None:
            # If it fails, the money is gone: keeping back the answer would not bring it again.
            # The desk tries on, and says what is the matter where its health is asked for.
            with suppress(WeftError, sqlite3.Error):
                await asyncio.shield(answer)

    def _close(
        self, status: Status, *, nothing: bool = False, error: str = ""
    ) -> asyncio.Future[object] | None:
        """End the call, unless it has ended."""
        if self._is_closed:
            return None
        self._is_closed = True
        house, model = self._house, self._request.model.lower()
        if nothing:
            verdict = Verdict(usage=Usage(), is_believed=True)
            spent = None
        else:
            provider = house.tariff.provider_of(model)
            broke_off = status is Status.ABORTED
            verdict = judge(
                self._answer, self._api, provider, self._terms, self._limit, broke_off=broke_off
            )
            usage, limit = verdict.usage, self._limit
            believed = verdict.is_believed
            spent = self._terms.spent(usage, limit) if believed else self._terms.worst(limit)
            if self._answer.failure and status is Status.DONE:
                status = Status.FAILED
        error = error or self._answer.failure
        call = self._call(verdict.usage, status, {"error": error} if error else {})
        if verdict.lie is not None:
            house.metrics.add("weft_disbelieved_total", model=model)
        elif verdict.is_believed and not nothing and status is Status.DONE:
            tokens = verdict.usage.output.low // self._request.choices
            house.tariff.outputs.observe(
                self._request.model, self._node, tokens, cut=self._answer.is_cut
            )
        house.metrics.ended(self._node, model, status.value, verdict.usage, spent or ())
        if house.spans is not None:
            house.spans.add(span_of(call, self._headers.get("traceparent", ""), error))
        self._spent = spent or ()
        end = End(handle=self._handle, spent=spent, call=call, lie=verdict.lie)
        return house.desk.end(end)

    def _call(self, usage: Usage, status: Status, labels: Mapping[str, str]) -> Call:
        answer, model, said = self._answer, self._request.model.lower(), self._said_for()
        more = {"answer": answer.id} if answer.id else {}
        if answer.model and answer.model.lower() != model:
            more["answered_by"] = answer.model
        return Call(
            id=self._id,
            source=SOURCE,
            at=self._began,
            seconds=max(0.0, time.time() - self._began),
            model=model,
            provider=self._house.tariff.provider_of(model),
            usage=usage,
            status=status,
            payer=self._node,
            tier=tier_name(answer.tier),
            agent=said.get("agent", ""),
            task=said.get("task", ""),
            session=said.get("session", ""),
            labels={**more, **labels},
        )

    async def _start(self, headers: Headers) -> None:
        self._has_started = True
        if "idempotency-key" in self._headers:
            self._sent_headers = headers
        start = {"type": "http.response.start", "status": self._status, "headers": headers}
        await self._send(start)

    async def _more(self, body: bytes) -> None:
        self._keep(body)
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def _end(self, body: bytes) -> None:
        self._keep(body)
        self._is_over = True
        with suppress(OSError):  # the client may be gone, and all is settled
            await self._send({"type": "http.response.body", "body": body})

    def _keep(self, body: bytes) -> None:
        if "idempotency-key" in self._headers:
            self._said.append(body)
