"""The SiliconFlow backend: prepare the photo, send it once, download the result, fit it to the photo.

A call is never repeated, since each one is charged; the download is, while that may help. The key goes into one header
and nowhere else.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import logging
import secrets
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpcore2

from app.backends.protocol import Receipts
from app.backends.siliconflow import NAME, failures, request
from app.backends.siliconflow.breaker import ProviderBreaker
from app.backends.siliconflow.download import Decode, fetch_result
from app.backends.siliconflow.exchange import Answer, BodyTooLarge, exchange
from app.backends.siliconflow.fitting import fit
from app.backends.siliconflow.paid_result import FetchRetries, Paid
from app.backends.siliconflow.preparation import Submission, prepare
from app.errors import Cancelled
from app.images import Picture
from app.notices import Notice, NoticeKind, notice
from app.options import RestoreOptions
from app.outbound.deadline import Deadline
from app.outbound.ssrf_safe_transport import GuardedNetwork
from app.results import RestorationResult
from app.stages import OnProgress, Stage

log = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 1024 * 1024
DOWNLOAD_SECONDS = 60.0
PROVIDER_WAIT_SECONDS = 30.0  # how long a photo whose turn it is waits for a provider in trouble
PROVIDER_LOOK_SECONDS = 0.5
TRACE_HEADER = "x-siliconcloud-trace-id"
# The provider reports no progress, so the fraction stands still while it works.
_PREPARED, _SENT, _ANSWERED, _FETCHED = 0.05, 0.1, 0.9, 0.95
_LOCAL_ONLY = ("quality", "model", "denoise", "repair", "color_correction")


@dataclasses.dataclass(frozen=True)
class Account:
    """The provider's address, model and limits, and the key, which is left out of the repr."""

    key: str = dataclasses.field(repr=False)
    api_url: str
    model: str
    timeout_seconds: float
    result_hosts: tuple[str, ...]


Share = Callable[[bytes], AbstractContextManager[str | None]]


def send_itself(_jpeg: bytes) -> AbstractContextManager[None]:
    """The `share` of whoever has no address that a provider could fetch."""
    return contextlib.nullcontext()


class SiliconFlowBackend:
    """Restores pictures at the provider; any number of threads may call it at once, since it keeps nothing of a photo.

    Args:
        account: address, model and key.
        decode: decodes a fetched file with the limits of an upload.
        network: how names are resolved and connections made.
        scratch: gives a fresh name for the fetched file.
        share: lends a prepared photo an address that the provider can fetch, or None: then its bytes are sent.
        breaker: says whether the provider may be asked; None: always.
        retries: how long a result that was paid for is tried for.
        clock: monotonic seconds.
        pause: waits so many seconds.
    """

    name = NAME

    def __init__(
        self,
        account: Account,
        decode: Decode,
        network: GuardedNetwork,
        *,
        scratch: Callable[[], AbstractContextManager[Path]],
        share: Share,
        retries: FetchRetries,
        breaker: ProviderBreaker | None = None,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._account, self._decode, self._network = account, decode, network
        self._scratch, self._share, self._retries, self._clock = scratch, share, retries, clock
        self._breaker, self._pause = breaker, pause
        self._receipts: Receipts | None = None

    def with_receipts(self, receipts: Receipts) -> SiliconFlowBackend:
        """See `Charging`."""
        bound = copy.copy(self)
        bound._receipts = receipts
        return bound

    def restore(self, picture: Picture, options: RestoreOptions, on_progress: OnProgress) -> RestorationResult:
        """Restore one picture; see `Backend`. The answer of a cancelled call is dropped; its charge is not."""
        began = self._clock()
        _say(on_progress, 0.0, Stage.PREPARING)
        submission = prepare(picture)
        paid = self._paid_before() or self._pay(submission, options, on_progress)
        keep_on = functools.partial(on_progress, _ANSWERED, Stage.DOWNLOADING)
        answer = self._retries.fetch(functools.partial(self._fetch, paid.made.url, keep_on), keep_on)
        _say(on_progress, _FETCHED, Stage.FITTING)
        fitted, notices = fit(picture, answer, options.scale)
        params = self._params(options, submission, paid, answer)
        seconds = self._clock() - began
        return RestorationResult(fitted, self._account.model, seconds, params, warnings=(*notices, *_unused(options)))

    def result_facts(self, options: RestoreOptions) -> dict[str, Any] | None:
        """See `Repeatable`: with a seed the provider repeats itself."""
        if options.seed is None:
            return None
        return {"api_url": self._account.api_url, "model": self._account.model}

    def pause_seconds(self) -> float | None:
        """See `Pausing`."""
        return None if self._breaker is None else self._breaker.retry_after_seconds()

    def _paid_before(self) -> Paid | None:
        """What an earlier run of the attempt paid for: it is only fetched."""
        receipt = None if self._receipts is None else self._receipts.take()
        return None if receipt is None else Paid.of_receipt(receipt)

    def _pay(self, submission: Submission, options: RestoreOptions, on_progress: OnProgress) -> Paid:
        """Send the photo, which is charged, and keep the receipt before anything else happens."""
        with self._share(submission.jpeg) as address:
            image = address or request.data_url(submission.jpeg)
            body = request.body_of(self._account.model, image, options)
            with self._admitted(lambda: on_progress(_PREPARED, Stage.PREPARING)):
                _say(on_progress, _PREPARED, Stage.SENDING)
                asked = self._clock()
                made, trace = self._ask(body, lambda: on_progress(_SENT, Stage.PROVIDER))
            paid = Paid(made, self._clock() - asked, trace)
            if self._receipts is not None:
                self._receipts.keep(paid.as_receipt())
        return paid

    @contextlib.contextmanager
    def _admitted(self, keep_on: Callable[[], bool]) -> Iterator[None]:
        """Wait a while for a provider in trouble, then ask it in the block; nothing is sent before, so nothing costs.

        Raises `provider_unavailable`, or `Cancelled`.
        """
        if self._breaker is None:
            yield
            return
        ends_at = self._clock() + PROVIDER_WAIT_SECONDS
        while not self._breaker.admit():
            if self._clock() >= ends_at:
                raise failures.unavailable()
            if not keep_on():
                raise Cancelled
            self._pause(PROVIDER_LOOK_SECONDS)
        with self._breaker.call():
            yield

    def _fetch(self, url: str, keep_on: Callable[[], bool]) -> Picture:
        """The result behind the URL, decoded; one try."""
        deadline = Deadline(DOWNLOAD_SECONDS, keep_on, self._clock)
        with self._scratch() as scratch:
            return fetch_result(url, self._account.result_hosts, self._network, deadline, self._decode, scratch)

    def _ask(self, body: bytes, keep_on: Callable[[], bool]) -> tuple[request.GeneratedImage, str]:
        """The one call that is charged; gives what was made and the provider's trace id."""
        headers = {
            "Authorization": f"Bearer {self._account.key}",
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "neural-image-restore",
        }
        deadline = Deadline(self._account.timeout_seconds, keep_on, self._clock)
        address = httpcore2.URL(self._account.api_url)
        try:
            with exchange(self._network, _anywhere, deadline, "POST", address, headers, body) as answer:
                trace = failures.printable(answer.header(TRACE_HEADER), self._account.key)
                said = b"".join(answer.pieces(MAX_ANSWER_BYTES))
                self._judge(answer, said, trace)
        except BodyTooLarge:
            log.warning("the provider's answer is larger than %d bytes", MAX_ANSWER_BYTES)
            raise failures.bad_answer() from None
        return request.read_answer(said), trace

    def _judge(self, answer: Answer, said: bytes, trace: str) -> None:
        """Log how it went; raise what a status other than 200 means."""
        if answer.status == 200:
            log.info("siliconflow answered 200, trace id %s", trace or "-")
            return
        words = failures.words_of(said, self._account.key)
        log.warning("siliconflow answered %d, trace id %s: %s", answer.status, trace or "-", words)
        raise failures.of_answer(answer.status, said, self._account.model)

    def _params(
        self,
        options: RestoreOptions,
        submission: Submission,
        paid: Paid,
        answer: Picture,
    ) -> dict[str, Any]:
        """The record of the attempt."""
        made, waited = paid.made, paid.waited_seconds
        seconds = waited if made.inference_seconds is None else made.inference_seconds
        return {
            "provider": NAME,
            "model": self._account.model,
            "prompt": request.prompt_of(options),
            "num_inference_steps": options.num_inference_steps,
            "guidance_scale": options.guidance_scale,
            "inference_time_seconds": round(seconds, 3),
            "seed": options.seed if made.seed is None else made.seed,
            "preprocessed": submission.facts,
            "provider_dimensions": [answer.width, answer.height],
            "trace_id": paid.trace or None,
        }


def open_siliconflow_backend(
    *,
    api_key: str,
    api_url: str,
    model: str,
    timeout_seconds: float,
    result_hosts: Collection[str],
    decode: Decode,
    scratch: Callable[[], AbstractContextManager[Path]] | None = None,
    share: Share = send_itself,
    network: GuardedNetwork | None = None,
    breaker: ProviderBreaker | None = None,
    retries: FetchRetries | None = None,
) -> SiliconFlowBackend:
    """The backend from plain values; connects to nothing. `scratch` is the system's temporary folder when None."""
    account = Account(api_key, api_url, model, timeout_seconds, tuple(result_hosts))
    network = network or GuardedNetwork()
    scratch, retries = scratch or _temporary_name, retries or FetchRetries()
    return SiliconFlowBackend(account, decode, network, scratch=scratch, share=share, retries=retries, breaker=breaker)


@contextlib.contextmanager
def _temporary_name() -> Iterator[Path]:
    """A name that nobody can guess; the file is made for us alone, and never through a link."""
    name = Path(tempfile.gettempdir()) / f"restore-{secrets.token_hex(16)}"
    try:
        yield name
    finally:
        name.unlink(missing_ok=True)


def _anywhere(_address: str) -> bool:
    """The operator chose the API's address, so a gateway on a private network is allowed."""
    return True


def _say(on_progress: OnProgress, fraction: float, stage: Stage) -> None:
    if not on_progress(fraction, stage):
        raise Cancelled


def _unused(options: RestoreOptions) -> list[Notice]:
    """A notice for options that only the local backend has."""
    unasked = RestoreOptions()
    named = [name for name in _LOCAL_ONLY if getattr(options, name) != getattr(unasked, name)]
    if not named:
        return []
    words = "The provider knows nothing of {options}; it was not used."
    return [notice(NoticeKind.OPTIONS_IGNORED, words, options=", ".join(named))]
