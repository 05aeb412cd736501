"""The SiliconFlow backend against everything its provider may answer, over real HTTP to a stand-in on loopback.

Each case has its exact outcome: code, HTTP status and sentence; how often the provider and the store were asked; and
that the key is nowhere to be read afterwards.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import logging
import ssl
import struct
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from app.backends.siliconflow import backend as backend_module
from app.backends.siliconflow import download, failures, request
from app.backends.siliconflow.request import read_answer
from app.error_codes import facts_of
from app.errors import BadGateway, Cancelled, RestoreError
from app.images import Decoder, ImageLimits, Picture
from app.options import RestoreOptions
from app.outbound.ssrf_safe_transport import GuardedNetwork
from tests.harness import until
from tests.provider_stand_in import HOST, KEY, MODEL, PUBLIC, SIGNATURE, TRACE, Play, StandIn, Wire

CONFIGURATION = ("provider_configuration", 401, "Service configuration error")
BUSY = ("provider_busy", 429, "Service busy, please try again")
REJECTED = ("provider_rejected", 400, "Image could not be processed")
TIMEOUT = ("provider_timeout", 504, "Service timeout, please retry")
UNAVAILABLE = ("provider_unavailable", 503, "Service unavailable")
GONE = ("provider_model_gone", 409, f"The provider no longer offers the model {MODEL}; the operator can name ")
BAD = ("provider_bad_answer", 502, "The provider's answer could not be understood")
REFUSED = ("provider_result_refused", 502, "The provider's result was not taken")
MISSING = ("provider_result_missing", 502, "The provider's result is not where it should be")
Outcome = tuple[str, int, str]
TEN_GB = 10 * 1024**3


@contextlib.contextmanager
def lent(path: Path) -> Iterator[Path]:
    """A scratch name as a storage lends it."""
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def picture(width: int = 40, height: int = 30) -> Picture:
    noise = np.random.default_rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Picture(noise, source_format="JPEG")


def keep_on(fraction: float, stage: str) -> bool:
    return True


def everything_said(caught: BaseException, caplog: pytest.LogCaptureFixture) -> str:
    """All that an operator or a user could ever read of a failure: the log, the trace, the error and its causes."""
    trace = "".join(traceback.format_exception(caught))
    parts = [record.getMessage() + str(record.exc_text) + repr(record.args) for record in caplog.records]
    return "\n".join([*parts, trace, repr(caught), repr(vars(caught))])


def api(body: Any, status: int = 200) -> Play:
    """The API answers at once; a text that is no JSON is sent as it is."""
    return lambda wire: wire.reply(status, body) if isinstance(body, bytes) else wire.json(status, body)


# --- what the API itself may answer ---------------------------------------------------------------------------------

LIMITED = (
    "Request was rejected due to rate limiting. If you want more, please contact contact@siliconflow.cn. "
    "Details:TPM limit reached."
)
API_ANSWERS: dict[str, tuple[Play, Outcome]] = {
    "400 bad parameter": (api({"code": 20015, "message": "The parameter is invalid.", "data": None}, 400), REJECTED),
    "400 image required": (api({"code": 20017, "message": "image is required", "data": None}, 400), REJECTED),
    "400 bad base64": (api({"code": 20023, "message": "Illegal base64", "data": None}, 400), REJECTED),
    "400 without a body": (api(b"", 400), REJECTED),
    "400 model dropped": (
        api({"code": 20012, "message": "Model does not exist. Please check it carefully.", "data": None}, 400),
        GONE,
    ),
    "404 model dropped, in words": (api({"message": "The model Qwen/X has been removed"}, 404), GONE),
    "403 model disabled": (api({"code": 30003, "message": "Model disabled.", "data": None}, 403), GONE),
    "401 no header": (api("Invalid token", 401), CONFIGURATION),
    "401 bad key": (api("Api key is invalid", 401), CONFIGURATION),
    "401 that repeats the key": (api(f"Api key {KEY} is invalid", 401), CONFIGURATION),
    "402": (api("Payment Required", 402), CONFIGURATION),
    "403 bare": (api("Forbidden", 403), CONFIGURATION),
    "403 balance": (api({"code": 30001, "message": "Sorry, your account balance is insufficient"}, 403), CONFIGURATION),
    "404 bare": (api("404 page not found", 404), CONFIGURATION),
    "404 as text": (api(b"404 page not found", 404), CONFIGURATION),
    "413": (api({"code": 20042, "message": "too large", "data": None}, 413), REJECTED),
    "429 without code": (api({"message": LIMITED, "data": "..."}, 429), BUSY),
    "429 with code": (api({"code": 50602, "message": LIMITED, "data": "..."}, 429), BUSY),
    "429 images a minute": (api({"code": 50604, "message": "IPM limit reached.", "data": None}, 429), BUSY),
    "429 images a day": (api({"code": 50605, "message": "IPD limit reached.", "data": None}, 429), BUSY),
    "451 indecent": (api({"code": 20021, "message": "NSFW", "data": None}, 451), REJECTED),
    "500": (api({"code": 50000, "message": "unknown", "data": None}, 500), UNAVAILABLE),
    "502 of a proxy": (api(b"<html>Bad Gateway</html>", 502), UNAVAILABLE),
    "503 overloaded": (
        api({"code": 50505, "message": "Model service overloaded. Please try again later.", "data": "..."}, 503),
        UNAVAILABLE,
    ),
    "503 older code": (api({"code": 50508, "message": "overloaded"}, 503), UNAVAILABLE),
    "504 bare": (api("Gateway Timeout", 504), TIMEOUT),
    "408": (api(b"", 408), TIMEOUT),
    "301 to another host": (
        lambda wire: wire.reply(301, b"", Location="https://elsewhere.example/v1/images/generations"),
        CONFIGURATION,
    ),
    "307 to this machine": (lambda wire: wire.reply(307, b"", Location="http://127.0.0.1:1/"), CONFIGURATION),
    "204": (api(b"", 204), BAD),
    "HTML": (api(b"<!doctype html><html><body>Please sign in</body></html>"), BAD),
    "an empty body": (api(b""), BAD),
    "JSON cut off": (api(b'{"images":[{"url":"https://s3.silic'), BAD),
    "a text": (api("ok"), BAD),
    "null": (api(None), BAD),
    "a list": (api([1, 2]), BAD),
    "no images": (api({"images": []}), BAD),
    "images that are null": (api({"images": None}), BAD),
    "an image without address": (api({"images": [{"b64_json": "xxx"}]}), BAD),
    "an address that is a number": (api({"images": [{"url": 17}]}), BAD),
    "an address that is a list": (api({"images": [{"url": ["https://s3.siliconflow.cn/a"]}]}), BAD),
    "JSON a million deep": (api(b"[" * 900_000), BAD),
    "bytes that are no text": (api(bytes(range(128, 256)) * 10), BAD),
    "2 MB of JSON": (api({"images": [{"url": "x" * 2_000_000}]}), BAD),
    "10 GB announced": (lambda wire: announce(wire, b"{"), BAD),
    "10 GB in chunks": (lambda wire: endless(wire), BAD),
    "closed without a word": (lambda wire: None, UNAVAILABLE),
    "cut in the headers": (lambda wire: wire.send(b"HTTP/1.1 200 OK\r\nContent-Le"), UNAVAILABLE),
    "cut in the body": (lambda wire: wire.send(wire.head(200, 5000) + b'{"images":'), UNAVAILABLE),
    "reset": (lambda wire: reset(wire), UNAVAILABLE),
    "no HTTP at all": (lambda wire: wire.send(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), UNAVAILABLE),
    "headers without end": (lambda wire: endless_headers(wire), UNAVAILABLE),
}


def announce(wire: Wire, beginning: bytes) -> None:
    wire.send(wire.head(200, TEN_GB) + beginning)
    wire.hang()


def endless(wire: Wire) -> None:
    wire.send(wire.head(200, None, Transfer_Encoding="chunked"))
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    while wire.send(chunk):
        pass


def endless_headers(wire: Wire) -> None:
    wire.send(b"HTTP/1.1 200 OK\r\n")
    while wire.send(b"X-More: " + b"a" * 8000 + b"\r\n"):
        pass


def reset(wire: Wire) -> None:
    wire.connection.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SO_LINGER of zero: the kernel says RST


def assert_outcome(error: RestoreError, outcome: Outcome) -> None:
    code, status, words = outcome
    assert (error.code, error.status) == (code, status)
    assert error.detail.startswith(words)
    assert facts_of(code).status == status  # what `Prefer: wait` will answer


@pytest.mark.parametrize("case", API_ANSWERS)
def test_every_answer_has_its_outcome_and_nothing_is_asked_twice(
    case: str, provider: StandIn, decoder: Decoder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    provider.api, outcome = API_ANSWERS[case]
    backend = provider.backend(decoder.decode)
    with pytest.raises(RestoreError) as caught:
        backend.restore(picture(), RestoreOptions(backend="siliconflow"), keep_on)
    assert_outcome(caught.value, outcome)
    assert len(provider.asked("api")) == 1
    assert provider.asked("store") == []
    assert provider.dialled == ["127.0.0.1"]
    said = everything_said(caught.value, caplog)
    assert KEY not in said
    assert "elsewhere.example" not in repr(provider.dialled)
    if outcome in (CONFIGURATION, BUSY, REJECTED, GONE):
        ours = [record.getMessage() for record in caplog.records if record.name.startswith("app.")]
        assert TRACE in "".join(ours)  # what the provider's support asks for
    provider.api = provider.paint
    assert backend.restore(picture(), RestoreOptions(), keep_on).picture.width == 160  # and the next photo is fine


# --- time --------------------------------------------------------------------------------------------------------

SLOW: dict[str, Play] = {
    "silence": lambda wire: wire.hang(),
    "headers drip": lambda wire: wire.drip(b"HTTP/1.1 200 OK\r\nX-Slow: " + b"a" * 10_000),
    "the body drips": lambda wire: wire.drip(b" " * 10_000, first=wire.head(200, 10_000)),
    "one interim answer after another": lambda wire: wire.drip(b"HTTP/1.1 102 Processing\r\n\r\n" * 1000, 0.001),
}


@pytest.mark.parametrize("case", SLOW)
def test_the_deadline_is_for_everything_together(case: str, provider: StandIn, decoder: Decoder) -> None:
    provider.api = SLOW[case]
    backend = provider.backend(decoder.decode, timeout_seconds=0.4)
    began = time.monotonic()
    with pytest.raises(RestoreError) as caught:
        backend.restore(picture(), RestoreOptions(), keep_on)
    assert_outcome(caught.value, TIMEOUT)
    assert 0.3 < time.monotonic() - began < 3.0
    assert len(provider.asked("api")) == 1


@pytest.mark.parametrize("case", SLOW)
def test_a_slow_store_is_given_up_too(
    case: str, provider: StandIn, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_module, "DOWNLOAD_SECONDS", 0.4)
    provider.store = SLOW[case]
    began = time.monotonic()
    with pytest.raises(RestoreError) as caught:
        provider.backend(decoder.decode).restore(picture(), RestoreOptions(), keep_on)
    assert_outcome(caught.value, TIMEOUT)
    assert time.monotonic() - began < 3.0
    assert (len(provider.asked("api")), len(provider.asked("store"))) == (1, 1)


def test_a_resolver_that_never_answers_ends_with_the_deadline(provider: StandIn, decoder: Decoder) -> None:
    bent = provider.network

    def resolve(host: str, port: int) -> list[str]:
        provider.stopping.wait(20.0)
        return []

    backend = provider.backend(
        decoder.decode, network=GuardedNetwork(resolve, bent.dial, bent.trust), timeout_seconds=0.3
    )
    with pytest.raises(RestoreError) as caught:
        backend.restore(picture(), RestoreOptions(), keep_on)
    assert_outcome(caught.value, TIMEOUT)
    assert provider.dialled == []


def test_a_server_that_does_not_take_the_photo_ends_with_the_deadline(provider: StandIn, decoder: Decoder) -> None:
    """The request is larger than all buffers on the way, and nobody reads it."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as deaf:
        address = f"http://127.0.0.1:{deaf.getsockname()[1]}/v1/images/generations"
        bent = provider.network
        dial: Callable[..., socket.socket] = lambda host, port, wait: socket.create_connection((host, port), wait)  # noqa: E731
        backend = provider.backend(
            decoder.decode,
            api_url=address,
            network=GuardedNetwork(bent.resolve, dial, bent.trust),
            timeout_seconds=0.5,
        )
        with pytest.raises(RestoreError) as caught:
            backend.restore(picture(2400, 1800), RestoreOptions(scale=1), keep_on)
    assert_outcome(caught.value, TIMEOUT)


@pytest.mark.parametrize("where", ["api", "store"])
def test_a_cancelled_call_is_dropped_within_a_second(where: str, provider: StandIn, decoder: Decoder) -> None:
    setattr(provider, where, Wire.hang)
    stages: list[str] = []

    def until_it_waits(fraction: float, stage: str) -> bool:
        stages.append(stage)
        return stages.count({"api": "provider", "store": "downloading"}[where]) < 3

    began = time.monotonic()
    with pytest.raises(Cancelled):
        provider.backend(decoder.decode).restore(picture(), RestoreOptions(), until_it_waits)
    assert time.monotonic() - began < 5.0
    assert len(provider.asked("api")) == 1


def test_a_waiting_call_gives_signs_of_life_and_honest_progress(provider: StandIn, decoder: Decoder) -> None:
    def late(wire: Wire) -> None:
        until(lambda: [stage for _, stage in said].count("provider") >= 3)
        provider.paint(wire)

    provider.api = late
    said: list[tuple[float, str]] = []

    def listen(fraction: float, stage: str) -> bool:
        said.append((fraction, stage))
        return True

    provider.backend(decoder.decode).restore(picture(), RestoreOptions(), listen)
    assert list(dict.fromkeys(stage for _, stage in said)) == [
        "preparing",
        "sending",
        "provider",
        "downloading",
        "fitting",
    ]
    waiting = [fraction for fraction, stage in said if stage == "provider"]
    assert len(waiting) >= 3
    assert len(set(waiting)) == 1  # nothing is known of the provider's progress, so none is shown
    fractions = [fraction for fraction, _ in said]
    assert fractions == sorted(fractions)


def test_nothing_is_sent_when_the_word_sent_could_not_be_written(provider: StandIn, decoder: Decoder) -> None:
    with pytest.raises(Cancelled):
        provider.backend(decoder.decode).restore(picture(), RestoreOptions(), lambda _, stage: stage != "sending")
    assert provider.heard == []
    assert provider.dialled == []


# --- what the store of results may answer ----------------------------------------------------------------------------


def bomb() -> bytes:
    """A PNG of 30000 x 30000 pixels in some kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 4_000_000, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def lying_jpeg() -> bytes:
    """A small JPEG whose header promises 12 megapixels, which decodes to an error or to nothing."""
    target = io.BytesIO()
    Image.new("RGB", (64, 64)).save(target, "JPEG")
    data = bytearray(target.getvalue())
    start = data.index(b"\xff\xc0")
    data[start + 5 : start + 9] = struct.pack(">HH", 3000, 4000)
    return bytes(data[: len(data) // 2])


EXPIRED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Request has expired.</Message></Error>"
STORE_ANSWERS: dict[str, tuple[Play, Outcome]] = {
    "expired": (lambda wire: wire.reply(403, EXPIRED, Content_Type="application/xml"), MISSING),
    "not there": (lambda wire: wire.reply(404, b"gone"), MISSING),
    "gone": (lambda wire: wire.reply(410, b""), MISSING),
    "redirect inside": (
        lambda wire: wire.reply(302, b"", Location="http://169.254.169.254/latest/meta-data/"),
        REFUSED,
    ),
    "redirect to this machine": (lambda wire: wire.reply(301, b"", Location="https://127.0.0.1/"), REFUSED),
    "redirect to itself": (lambda wire: wire.reply(307, b"", Location=f"https://{HOST}/other.png"), REFUSED),
    "redirect elsewhere": (lambda wire: wire.reply(308, b"", Location="https://example.com/a.png"), REFUSED),
    "partial": (lambda wire: wire.reply(206, b"abc"), MISSING),
    "500": (lambda wire: wire.reply(500, b""), UNAVAILABLE),
    "503": (lambda wire: wire.reply(503, b"SlowDown"), UNAVAILABLE),
    "504": (lambda wire: wire.reply(504, b""), TIMEOUT),
    "HTML": (lambda wire: wire.reply(200, b"<html>sign in</html>", Content_Type="text/html"), REFUSED),
    "HTML that says it is a picture": (lambda wire: wire.reply(200, b"<html>", Content_Type="image/png"), REFUSED),
    "SVG": (lambda wire: wire.reply(200, b"<svg xmlns='http://www.w3.org/2000/svg'/>"), REFUSED),
    "nothing": (lambda wire: wire.reply(200, b""), REFUSED),
    "an image bomb": (lambda wire: wire.reply(200, bomb()), REFUSED),
    "a JPEG that lies about its size": (lambda wire: wire.reply(200, lying_jpeg()), REFUSED),
    "10 GB announced": (lambda wire: endless_zeros(wire), REFUSED),
    "10 GB in chunks": (lambda wire: endless(wire), REFUSED),
    "cut in the body": (lambda wire: wire.send(wire.head(200, 5000) + b"\x89PNG\r\n\x1a\n"), UNAVAILABLE),
    "closed without a word": (lambda wire: None, UNAVAILABLE),
    "no HTTP at all": (lambda wire: wire.send(b"220 ready\r\n\r\n"), UNAVAILABLE),
}


def endless_zeros(wire: Wire) -> None:
    wire.send(wire.head(200, TEN_GB))
    while wire.send(b"\0" * 65536):
        pass


@pytest.mark.parametrize("case", STORE_ANSWERS)
def test_every_answer_of_the_store_has_its_outcome(
    case: str, provider: StandIn, decoder: Decoder, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    provider.store, outcome = STORE_ANSWERS[case]
    scratch = tmp_path / "result"
    backend = provider.backend(decoder.decode, scratch=lambda: lent(scratch))
    with pytest.raises(RestoreError) as caught:
        backend.restore(picture(), RestoreOptions(), keep_on)
    assert_outcome(caught.value, outcome)
    assert (len(provider.asked("api")), len(provider.asked("store"))) == (1, 1)
    assert provider.dialled == ["127.0.0.1", PUBLIC]
    said = everything_said(caught.value, caplog)
    assert KEY not in said
    assert SIGNATURE not in said  # whoever has that address has the photo
    assert list(tmp_path.iterdir()) == []
    provider.store = provider.give
    assert backend.restore(picture(), RestoreOptions(), keep_on).picture.width == 160


def test_the_key_is_sent_to_the_provider_and_to_nobody_else(provider: StandIn, decoder: Decoder) -> None:
    provider.backend(decoder.decode).restore(picture(), RestoreOptions(), keep_on)
    (asked,), (fetched,) = provider.asked("api"), provider.asked("store")
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert (asked.method, asked.target) == ("POST", "/v1/images/generations")
    assert KEY not in json.dumps(fetched.headers) + fetched.target
    assert fetched.headers["host"] == HOST
    assert not {"cookie", "referer", "authorization"} & set(fetched.headers)


def test_the_store_must_prove_its_name(provider: StandIn, decoder: Decoder) -> None:
    """The certificate is for s3.siliconflow.cn; behind another name it counts for nothing, whatever the address."""
    provider.names["cdn.siliconflow.com"] = [PUBLIC]
    url = provider.put(b"picture").replace(HOST, "cdn.siliconflow.com")
    provider.api = api({"images": [{"url": url}]})
    backend = provider.backend(decoder.decode, result_hosts=("*.siliconflow.com",))
    with pytest.raises(RestoreError) as caught:
        backend.restore(picture(), RestoreOptions(), keep_on)
    assert_outcome(caught.value, UNAVAILABLE)
    assert provider.asked("store") == []
    unknown = provider.backend(
        decoder.decode, network=GuardedNetwork(provider._resolve, provider._dial, _trusts_nobody())
    )
    provider.api = provider.paint
    with pytest.raises(RestoreError) as caught:
        unknown.restore(picture(), RestoreOptions(), keep_on)
    assert_outcome(caught.value, UNAVAILABLE)
    assert provider.asked("store") == []


def _trusts_nobody() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def test_a_store_that_is_nowhere_is_unavailable(provider: StandIn, decoder: Decoder) -> None:
    nowhere: list[dict[str, list[str]]] = [{}, {HOST: []}, {HOST: ["1.1.1.1", "8.8.8.8"]}]
    for names in nowhere:
        provider.names = names
        with pytest.raises(RestoreError) as caught:
            provider.backend(decoder.decode).restore(picture(), RestoreOptions(), keep_on)
        assert_outcome(caught.value, UNAVAILABLE)
    assert provider.dialled[-2:] == ["1.1.1.1", "8.8.8.8"]  # refused by the test's dialling, never contacted
    assert provider.asked("store") == []


@pytest.mark.parametrize("when", ["making the file", "writing it"])
def test_a_disk_that_cannot_take_the_result_is_told_as_that(
    when: str, provider: StandIn, decoder: Decoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    scratch = tmp_path / "no folder" / "result" if when == "making the file" else tmp_path / "result"
    if when == "writing it":
        monkeypatch.setattr(download, "_write_whole", full)
    with pytest.raises(RestoreError) as caught:
        provider.backend(decoder.decode, scratch=lambda: lent(scratch)).restore(picture(), RestoreOptions(), keep_on)
    assert (caught.value.code, caught.value.status) == ("storage_full", 503)
    assert list(tmp_path.iterdir()) == []


def test_a_result_whose_decoder_was_closed_is_left_to_the_next_run(provider: StandIn) -> None:
    closed = Decoder(ImageLimits())
    closed.close()
    with pytest.raises(RestoreError) as caught:
        provider.backend(closed.decode).restore(picture(), RestoreOptions(), keep_on)
    assert (caught.value.code, caught.value.status) == ("shutting_down", 503)


# --- small parts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extra", "seconds", "seed"),
    [
        ({"timings": {"inference": 1.5}, "seed": 7}, 1.5, 7),
        ({"timings": {"inference": 3}, "seed": 9_999_999_999}, 3.0, 9_999_999_999),
        ({}, None, None),
        ({"timings": None, "seed": None}, None, None),
        ({"timings": [1], "seed": "7"}, None, None),
        ({"timings": {"inference": "1"}, "seed": 7.5}, None, None),
        ({"timings": {"inference": -1}, "seed": -1}, None, None),
        ({"timings": {"inference": True}, "seed": True}, None, None),
        ({"timings": {"inference": float("nan")}, "seed": 10**40}, None, None),
        ({"timings": {"inference": 10**400}, "seed": KEY}, None, None),
    ],
)
def test_only_facts_of_the_right_kind_are_believed(
    extra: dict[str, Any], seconds: float | None, seed: int | None
) -> None:
    made = read_answer(json.dumps({"images": [{"url": "https://a.b/c"}], **extra}).encode())
    assert (made.inference_seconds, made.seed) == (seconds, seed)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["images", "url", "timings", "inference", "seed", "code", "message"]), inner)
    ),
    max_leaves=12,
)


@given(JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60), st.integers(100, 599))
def test_no_answer_whatever_raises_anything_but_an_agreed_error(body: bytes, status: int) -> None:
    with contextlib.suppress(BadGateway):
        made = read_answer(body)
        assert isinstance(made.url, str)
    error = failures.of_answer(status, body, MODEL)
    assert facts_of(error.code).status == error.status
    assert failures.words_of(body, KEY).isprintable() or not failures.words_of(body, KEY)


def test_a_log_line_of_foreign_words_is_one_harmless_line_without_the_key() -> None:
    body = json.dumps({"code": 1, "message": f"a\r\nFAKE \x1b[31m line {KEY} " + "x" * 5000}).encode()
    words = failures.words_of(body, KEY)
    assert KEY not in words
    assert "[hidden]" in words
    assert words.isprintable()
    assert len(words) < 400


def test_the_object_and_its_parts_do_not_show_the_key(provider: StandIn, decoder: Decoder) -> None:
    backend = provider.backend(decoder.decode)
    assert KEY not in repr(backend) + repr(backend._account) + str(backend._account)


def test_the_default_prompt_is_the_agreed_one() -> None:
    assert request.DEFAULT_PROMPT == (
        "Restore this old damaged photo. Enhance clarity, remove scratches and damage, improve colors while "
        "preserving original details."
    )
