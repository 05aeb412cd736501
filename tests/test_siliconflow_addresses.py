"""No result is ever fetched from inside: disguised URLs, names that lead to private addresses, names that change.

The whole backend runs against the stand-in; its dialling writes down every address, so "never contacted" is seen.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import RestoreError
from app.images import Decoder, Picture
from app.options import RestoreOptions
from app.outbound.addresses import MAX_URL_CHARACTERS, is_public, read_url
from tests.provider_stand_in import HOST, PUBLIC, StandIn, stand_in

HOSTS = (HOST, "*.siliconflow.com")


@pytest.fixture(scope="module")
def shared_provider() -> Iterator[StandIn]:
    with stand_in() as running:
        yield running


@pytest.fixture
def provider(shared_provider: StandIn) -> StandIn:
    shared_provider.heard.clear()
    shared_provider.dialled.clear()
    shared_provider.names = {HOST: [PUBLIC]}
    shared_provider.api, shared_provider.store = shared_provider.paint, shared_provider.give
    return shared_provider


def refused_code(provider: StandIn, decoder: Decoder, url: str, hosts: tuple[str, ...] = HOSTS) -> str:
    """What becomes of an attempt whose answer names this URL."""
    provider.api = lambda wire: wire.json(200, {"images": [{"url": url}]})
    photo = Picture(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(RestoreError) as caught:
        provider.backend(decoder.decode, result_hosts=hosts).restore(photo, RestoreOptions(), lambda *_: True)
    return caught.value.code


DISGUISED_URLS = [
    # not https, or not to the usual port
    f"http://{HOST}/a.png",
    f"ftp://{HOST}/a.png",
    f"file://{HOST}/etc/passwd",
    "file:///etc/passwd",
    "gopher://127.0.0.1:6379/_x",
    f"https://{HOST}:8443/a.png",
    f"https://{HOST}:22/a.png",
    f"https://{HOST}:0443/a.png",
    "data:image/png;base64,AAAA",
    f"//{HOST}/a.png",
    "/etc/passwd",
    "",
    f"https:{HOST}/a.png",
    f"https:/{HOST}/a.png",
    f"https:///{HOST}/a.png",
    # addresses in every spelling
    "https://127.0.0.1/a.png",
    "https://127.1/a.png",
    "https://0/a.png",
    "https://2130706433/a.png",
    "https://0x7f000001/a.png",
    "https://0x7f.0.0.1/a.png",
    "https://0177.0.0.1/a.png",
    "https://017700000001/a.png",
    "https://127.0.0.1./a.png",
    "https://[::1]/a.png",
    "https://[::ffff:127.0.0.1]/a.png",
    "https://[::ffff:7f00:1]/a.png",
    "https://[2002:7f00:1::]/a.png",
    "https://[64:ff9b::7f00:1]/a.png",
    "https://[fe80::1%25eth0]/a.png",
    "https://169.254.169.254/latest/meta-data/",
    "https://100.100.100.200/latest/meta-data/",
    "https://localhost/a.png",
    "https://metadata.google.internal/computeMetadata/v1/",
    # names that are not on the list, or only look as if they were
    "https://example.com/a.png",
    f"https://{HOST}.evil.example/a.png",
    f"https://evil{HOST}/a.png",
    "https://siliconflow.com/a.png",
    "https://evilsiliconflow.com/a.png",
    "https://.siliconflow.com/a.png",
    "https://a..siliconflow.com/a.png",
    f"https://{HOST}./a.png",
    "https://127.0.0.1.nip.io/a.png",
    # another host than the one that is read
    f"https://{HOST}@127.0.0.1/a.png",
    f"https://user:pass@{HOST}/a.png",
    f"https://127.0.0.1\\@{HOST}/a.png",
    f"https://{HOST}\\@127.0.0.1/a.png",
    f"https://{HOST}#@127.0.0.1/a.png",
    f"https://{HOST}%2f@127.0.0.1/a.png",
    f"https://{HOST}%00.example.com/a.png",
    f"https://127.0.0.1#.{HOST}/a.png",
    f"https://127.0.0.1?.{HOST}/a.png",
    # letters that fold into others, blanks and line ends
    "https://ⓢ3.siliconflow.cn/a.png",
    "https://s3.siliconflow。cn/a.png",
    "https://s3.sıliconflow.cn/a.png",
    "https://xn--s3-siliconflow.cn/a.png",
    f"https://{HOST}/a b.png",
    f" https://{HOST}/a.png",
    f"https://{HOST}/a.png\n",
    f"https://{HOST}/a.png\r\nX-Injected: 1",
    f"https://{HOST}/ä.png",
    f"https://{HOST}",
    f"https://{HOST}/" + "a" * MAX_URL_CHARACTERS,
]


@pytest.mark.parametrize("url", DISGUISED_URLS, ids=range(len(DISGUISED_URLS)))
def test_a_disguised_address_is_never_contacted(url: str, provider: StandIn, decoder: Decoder) -> None:
    assert refused_code(provider, decoder, url) == "provider_result_refused"
    assert provider.dialled == ["127.0.0.1"]  # the call itself, and nothing after it
    assert len(provider.asked("api")) == 1


PRIVATE = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.7",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.8.8.8",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:8.8.8.8",
    "::ffff:0:127.0.0.1",
    "64:ff9b::a00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:db8::1",
    "2002:7f00:1::1",
    "2002:a9fe:a9fe::",
    "2606:4700::5efe:10.0.0.1",
    "2606:4700::200:5efe:a00:1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "2606:4700::1%eth0",
    "not an address",
    "",
]
OPEN = ["1.1.1.1", "8.8.8.8", PUBLIC, "100.63.255.255", "172.32.0.1", "192.0.1.1", "198.20.0.1", "223.255.255.255"]
OPEN += ["2606:4700:4700::1111", "2a00:1450:4001::1", "2001:4860:4860::8888", "64:ff9b::808:808"]


@pytest.mark.parametrize("address", PRIVATE)
def test_a_listed_name_that_leads_inside_is_not_followed(address: str, provider: StandIn, decoder: Decoder) -> None:
    assert not is_public(address)
    provider.names[HOST] = [address]
    assert refused_code(provider, decoder, f"https://{HOST}/a.png") == "provider_result_refused"
    assert provider.dialled == ["127.0.0.1"]


@pytest.mark.parametrize("address", OPEN)
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(address)


def test_one_private_address_among_public_ones_refuses_the_name(provider: StandIn, decoder: Decoder) -> None:
    provider.names[HOST] = [PUBLIC, "192.168.1.1"]
    assert refused_code(provider, decoder, f"https://{HOST}/a.png") == "provider_result_refused"
    assert provider.dialled == ["127.0.0.1"]


def test_a_name_that_changes_between_check_and_connection_gains_nothing(provider: StandIn, decoder: Decoder) -> None:
    """The first answer of the resolver is public, every later one private; the resolver is asked once."""
    asked: list[str] = []
    resolve = provider._resolve

    def rebinding(host: str, port: int) -> list[str]:
        if host != HOST:
            return resolve(host, port)
        asked.append(host)
        return [PUBLIC] if len(asked) == 1 else ["169.254.169.254"]

    provider._resolve = rebinding  # type: ignore[method-assign]
    try:
        photo = Picture(np.full((8, 8, 3), 90, np.uint8))
        restored = provider.backend(decoder.decode).restore(photo, RestoreOptions(scale=1), lambda *_: True)
    finally:
        del provider._resolve
    assert restored.picture.width == 8
    assert asked == [HOST]
    assert provider.dialled == ["127.0.0.1", PUBLIC]


@pytest.mark.parametrize(
    ("url", "host"),
    [
        (f"https://{HOST}/temporary/a.png?Expires=1&Signature=a%2Fb%3D", HOST),
        (f"HTTPS://{HOST.upper()}/A.png", HOST),
        (f"https://{HOST}:443/a.png", HOST),
        ("https://cdn.siliconflow.com/outputs%2F20250508%2Fx.jpeg", "cdn.siliconflow.com"),
        ("https://a.b.siliconflow.com/", "a.b.siliconflow.com"),
    ],
)
def test_plain_addresses_of_listed_hosts_are_read(url: str, host: str) -> None:
    found = read_url(url, HOSTS)
    assert found is not None
    assert found.host == host
    assert url.lower().endswith(found.target.lower())


@given(st.text(max_size=60), st.sampled_from([f"https://{HOST}", "https://", "https://a@", "https://[", ""]))
def test_whatever_is_read_names_a_listed_host_and_a_clean_target(tail: str, start: str) -> None:
    found = read_url(start + tail, HOSTS)
    if found is not None:
        assert found.host == HOST or found.host.endswith(".siliconflow.com")
        assert found.target.isascii()
        assert not set(found.target) & set(" \r\n\t\\#")
        json.dumps(found.target)


@given(st.ip_addresses(v=4))
def test_an_address_and_its_disguises_are_judged_alike(address: object) -> None:
    number = int(address)  # type: ignore[call-overload]
    high, low = number >> 16, number & 0xFFFF
    assert not is_public(f"::ffff:{high:x}:{low:x}")
    assert not is_public(f"2002:{high:x}:{low:x}::1")
    assert is_public(f"64:ff9b::{high:x}:{low:x}") == is_public(str(address))
