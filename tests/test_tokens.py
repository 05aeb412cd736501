"""Tokens and the keys they are checked with: what is taken, what is refused, and what an outage of the issuer does."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from app.api.auth import key_set
from app.api.auth.caller import CLOCK_LEEWAY_SECONDS, Caller, Role
from app.api.auth.key_set import AGAIN_SECONDS, COOLDOWN_SECONDS, KeySet, KeySetUnreadable, fetch_key_set, read_key_set
from app.api.auth.tokens import LONGEST_TOKEN_CHARACTERS, SharedSecret, TokenRules, Tokens
from app.errors import RestoreError
from tests.token_issuer import ADMIN_CLAIM, AUDIENCE, ISSUER, SECRET, Issuer, claims, serving

RULES = TokenRules(ISSUER, AUDIENCE, tuple(ADMIN_CLAIM.rpartition("="))[::2])  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def by_keys(issuer: Issuer) -> Tokens:
    keys = KeySet("unused", fetch=lambda _: issuer.key_set())
    assert keys.refresh()
    return Tokens(RULES, keys)


@pytest.fixture
def by_secret() -> Tokens:
    return Tokens(RULES, SharedSecret(SECRET))


def check(found: Tokens, token: str | bytes) -> Caller:
    return asyncio.run(found.check(token if isinstance(token, bytes) else token.encode()))


def code_of(found: Tokens, token: str | bytes) -> str:
    with pytest.raises(RestoreError) as refused:
        check(found, token)
    return refused.value.code


def shared(secret: str = SECRET, algorithm: str = "HS256", **changes: Any) -> str:
    return jwt.encode(claims(**changes), secret, algorithm)


# What is taken.


@pytest.mark.parametrize("key_id", ["rsa-1", "ec-1"])
def test_a_token_of_either_kind_of_key_gives_its_user(by_keys: Tokens, issuer: Issuer, key_id: str) -> None:
    caller = check(by_keys, issuer.token(key_id, subject="kay"))
    assert (caller.name, caller.role, caller.label) == ("kay", Role.USER, "token")
    assert caller.expires_at is not None
    assert 200 < caller.expires_at - time.time() < 301
    assert len(caller.owner) == 32


def test_a_user_is_the_same_with_every_token_and_nobody_else_with_another_subject_or_issuer(by_secret: Tokens) -> None:
    one = check(by_secret, shared(subject="kay")).owner
    assert check(by_secret, shared(subject="kay", jti="another", preferred_username="K")).owner == one
    assert check(by_secret, shared(subject="kays")).owner != one
    elsewhere = Tokens(TokenRules("https://other.example", AUDIENCE), SharedSecret(SECRET))
    assert check(elsewhere, shared(subject="kay", iss="https://other.example")).owner != one


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"preferred_username": None, "email": "kay@example.org"}, "kay@example.org"),
        ({"preferred_username": "a\nb\x1b[31m\u202e", "email": None}, "ab31m"),
        ({"preferred_username": "k" * 500}, "k" * 80),
    ],
)
def test_the_name_is_one_plain_word_for_the_log(by_secret: Tokens, given: dict[str, Any], name: str) -> None:
    assert check(by_secret, shared(**given)).name == name


def test_a_user_without_a_name_gets_one_from_its_owner(by_secret: Tokens) -> None:
    caller = check(by_secret, shared(preferred_username=["not", "a", "word"]))
    assert caller.name == f"user-{caller.owner[:8]}"


@pytest.mark.parametrize(
    ("claim", "given", "role"),
    [
        (("realm_access.roles", "restore-admin"), {"realm_access": {"roles": ["a", "restore-admin"]}}, Role.ADMIN),
        (("realm_access.roles", "restore-admin"), {"realm_access": {"roles": ["restore-administrator"]}}, Role.USER),
        (("realm_access.roles", "restore-admin"), {"realm_access": "restore-admin"}, Role.USER),
        (("app_metadata.role", "admin"), {"app_metadata": {"role": "admin"}}, Role.ADMIN),
        (("https://restore.example.org/roles", "admin"), {"https://restore.example.org/roles": ["admin"]}, Role.ADMIN),
        (None, {"role": "admin"}, Role.USER),
    ],
)
def test_a_claim_makes_an_admin_and_nothing_like_it_does(
    claim: tuple[str, str] | None, given: dict[str, Any], role: Role
) -> None:
    found = Tokens(TokenRules(ISSUER, AUDIENCE, claim), SharedSecret(SECRET))
    assert check(found, shared(**given)).role is role


@pytest.mark.parametrize("given", [{"exp": -CLOCK_LEEWAY_SECONDS + 5}, {"nbf": 25, "iat": 25}])
def test_clocks_may_differ_a_little(by_secret: Tokens, given: dict[str, int]) -> None:
    moved: dict[str, Any] = {name: int(time.time()) + seconds for name, seconds in given.items()}
    assert check(by_secret, shared(**moved)).name == "user-1"


# What is refused.


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"exp": -CLOCK_LEEWAY_SECONDS - 5}, "token_expired"),
        ({"nbf": CLOCK_LEEWAY_SECONDS + 60}, "wrong_token"),
        ({"iat": CLOCK_LEEWAY_SECONDS + 60}, "wrong_token"),
    ],
)
def test_a_token_out_of_its_time_is_refused(by_secret: Tokens, given: dict[str, int], code: str) -> None:
    moved: dict[str, Any] = {name: int(time.time()) + seconds for name, seconds in given.items()}
    assert code_of(by_secret, shared(**moved)) == code


@pytest.mark.parametrize(
    "given",
    [
        {"aud": "another-service"},
        {"aud": ["another-service", AUDIENCE + "x"]},
        {"aud": AUDIENCE[:-1]},
        {"aud": None},
        {"iss": ISSUER + "/"},
        {"iss": ISSUER[:-1]},
        {"iss": None},
        {"sub": None},
        {"sub": ""},
        {"sub": 5},
        {"exp": None},
        {"exp": "soon"},
        {"exp": float("inf")},
    ],
)
def test_a_token_for_others_or_with_a_claim_missing_is_refused(by_secret: Tokens, given: dict[str, Any]) -> None:
    body = {**claims(), **given}
    token = jwt.encode({name: value for name, value in body.items() if value is not None}, SECRET, "HS256")
    if given.get("iss", "") is None or given.get("sub", "") == 5:
        token = signed_by_hand({name: value for name, value in body.items() if value is not None})
    assert code_of(by_secret, token) == "wrong_token"


def signed_by_hand(body: dict[str, Any]) -> str:
    return jwt.PyJWS().encode(json.dumps(body).encode(), SECRET, "HS256")


def unsigned(header: dict[str, Any], body: dict[str, Any], signature: bytes = b"") -> str:
    parts = [json.dumps(header).encode(), json.dumps(body).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", "HS384", "PS256", "dir"])
@pytest.mark.parametrize("key_id", [None, "rsa-1"])
def test_an_algorithm_that_the_settings_do_not_name_is_refused(
    by_keys: Tokens, by_secret: Tokens, algorithm: str, key_id: str | None
) -> None:
    header = {"alg": algorithm, "typ": "JWT", **({"kid": key_id} if key_id else {})}
    for found in (by_keys, by_secret):
        assert code_of(found, unsigned(header, claims())) == "wrong_token"


def test_another_algorithm_with_the_right_secret_is_refused(by_secret: Tokens) -> None:
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        longer = shared(SECRET[:40], "HS384")
    assert code_of(Tokens(RULES, SharedSecret(SECRET[:40])), longer) == "wrong_token"
    assert code_of(by_secret, shared(SECRET, "HS384")) == "wrong_token"


def test_a_public_key_is_never_a_shared_secret(by_keys: Tokens, issuer: Issuer) -> None:
    header, body = {"alg": "HS256", "kid": "rsa-1"}, claims()
    signed = unsigned(header, body).rpartition(".")[0].encode()
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(signed, issuer.public_pem())
    assert code_of(by_keys, unsigned(header, body, signature)) == "wrong_token"


def test_a_secret_is_never_a_public_key_and_keys_do_not_stand_for_each_other(
    by_secret: Tokens, by_keys: Tokens, issuer: Issuer
) -> None:
    assert code_of(by_secret, issuer.token("rsa-1")) == "wrong_token"
    assert code_of(by_keys, shared()) == "wrong_token"
    _, key = issuer.keys["rsa-1"]
    crossed = jwt.encode(claims(), key, "RS256", headers={"kid": "ec-1"})
    assert code_of(by_keys, crossed) == "wrong_token"
    stranger = jwt.encode(claims(), rsa.generate_private_key(65537, 2048), "RS256", headers={"kid": "rsa-1"})
    assert code_of(by_keys, stranger) == "wrong_token"


def test_a_changed_claim_breaks_the_signature(by_secret: Tokens) -> None:
    header, _, signature = shared().split(".")
    other = base64.urlsafe_b64encode(json.dumps(claims("admin")).encode()).rstrip(b"=").decode()
    assert code_of(by_secret, f"{header}.{other}.{signature}") == "wrong_token"


@pytest.mark.parametrize(
    "token",
    [b"", b".", b"..", b"a.b.c", b"\xff\xfe.\xff.\xff", b"e30.e30.", b"W10.e30.AA", b"eyJhbGciOiJIUzI1NiJ9.W10.AA"],
)
def test_what_is_no_token_is_refused_like_a_wrong_one(by_keys: Tokens, by_secret: Tokens, token: bytes) -> None:
    assert {code_of(by_keys, token), code_of(by_secret, token)} == {"wrong_token"}


@pytest.mark.parametrize("key_id", [7, "k" * 300, ["rsa-1"], {"a": 1}])
def test_an_odd_key_id_is_refused(by_keys: Tokens, key_id: object) -> None:
    assert code_of(by_keys, unsigned({"alg": "RS256", "kid": key_id}, claims())) == "wrong_token"


@pytest.mark.parametrize("said", [{"crit": ["b64"], "b64": False}, {"crit": ["exp"]}, {"zip": "DEF"}])
def test_headers_that_change_what_is_signed_are_refused(by_secret: Tokens, said: dict[str, Any]) -> None:
    assert code_of(by_secret, unsigned({"alg": "HS256", **said}, claims())) == "wrong_token"


def test_a_huge_token_is_refused_by_its_length_before_anything_is_read(
    by_secret: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = shared(note="x" * 4000)
    assert check(by_secret, fits).name == "user-1"

    def read(_: object) -> None:
        raise AssertionError("a huge token was read")

    monkeypatch.setattr(jwt, "get_unverified_header", read)
    assert code_of(by_secret, shared(note="x" * LONGEST_TOKEN_CHARACTERS)) == "wrong_token"


def test_a_deep_token_is_refused(by_secret: Tokens) -> None:
    deep = base64.urlsafe_b64encode(b"[" * 5000).rstrip(b"=").decode()
    assert code_of(by_secret, f"{deep}.e30.AA") == "wrong_token"


def test_a_short_public_key_is_refused() -> None:
    weak = Issuer()
    weak.keys["rsa-1"] = "RS256", rsa.generate_private_key(65537, 1024)
    keys = KeySet("unused", fetch=lambda _: weak.key_set())
    keys.refresh()
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        token = weak.token("rsa-1")
    assert code_of(Tokens(RULES, keys), token) == "wrong_token"


# The set of keys.


class Fetcher:
    """Stands where the network is; counts, and fails on demand."""

    def __init__(self, issuer: Issuer) -> None:
        self.issuer, self.count, self.fails = issuer, 0, False
        self.body: bytes | None = None

    def __call__(self, address: str) -> bytes:
        self.count += 1
        if self.fails:
            raise ConnectionRefusedError("the issuer is away")
        return self.issuer.key_set() if self.body is None else self.body


class Rig:
    """A key set over a fetcher and a clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.issuer = Issuer()
        self.fetcher = Fetcher(self.issuer)
        self.keys = KeySet("unused", fetch=self.fetcher, clock=lambda: self.now)
        self.tokens = Tokens(RULES, self.keys)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_valid_user_stays_while_the_issuer_is_away_and_health_says_so(rig: Rig) -> None:
    assert rig.keys.refresh()
    rig.fetcher.fails = True
    for _ in range(20):
        rig.now += 300
        assert not rig.keys.refresh()
        assert check(rig.tokens, rig.issuer.token()).name == "user-1"
    assert "JWT_JWKS_URL" in str(rig.tokens.problem)
    rig.fetcher.fails = False
    assert rig.keys.refresh()
    assert rig.tokens.problem is None


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"keys": []}', b'{"keys": [{"kty": "oct", "k": "AA"}]}', b"<html>", b"[]"]
)
def test_an_answer_without_usable_keys_does_not_take_the_good_ones_away(rig: Rig, body: bytes) -> None:
    assert rig.keys.refresh()
    with pytest.raises(KeySetUnreadable):
        read_key_set(body)
    rig.fetcher.body = body
    assert not rig.keys.refresh()
    assert check(rig.tokens, rig.issuer.token()).name == "user-1"


def test_without_any_keys_yet_the_answer_is_503_and_never_401(rig: Rig) -> None:
    rig.fetcher.fails = True
    for _ in range(3):
        with pytest.raises(RestoreError) as refused:
            check(rig.tokens, rig.issuer.token())
        assert (refused.value.status, refused.value.code) == (503, "token_keys_unavailable")
        assert refused.value.retry_after_seconds == AGAIN_SECONDS
    assert rig.fetcher.count == 1
    rig.fetcher.fails = False
    rig.now += COOLDOWN_SECONDS
    assert check(rig.tokens, rig.issuer.token()).name == "user-1"


def test_a_rotated_key_works_with_its_first_token_and_the_old_one_no_more(rig: Rig) -> None:
    rig.keys.refresh()
    old = rig.issuer.token("rsa-1")
    rig.issuer.add_key("rsa-2", "RS256")
    del rig.issuer.keys["rsa-1"]
    rig.now += COOLDOWN_SECONDS
    assert check(rig.tokens, rig.issuer.token("rsa-2")).name == "user-1"
    assert rig.fetcher.count == 2
    assert code_of(rig.tokens, old) == "wrong_token"


def test_a_flood_of_unknown_key_ids_causes_one_fetch_in_a_while(rig: Rig) -> None:
    rig.keys.refresh()
    rig.now += COOLDOWN_SECONDS

    async def flood() -> list[str]:
        strange = [unsigned({"alg": "RS256", "kid": f"k{n}"}, claims(), b"x" * 256).encode() for n in range(200)]
        refused = await asyncio.gather(*(rig.tokens.check(token) for token in strange), return_exceptions=True)
        assert (await rig.tokens.check(rig.issuer.token().encode())).name == "user-1"
        return [getattr(error, "code", "none") for error in refused]

    for rounds in range(1, 4):
        assert set(asyncio.run(flood())) == {"wrong_token"}
        assert rig.fetcher.count == 1 + rounds
        assert set(asyncio.run(flood())) == {"wrong_token"}
        assert rig.fetcher.count == 1 + rounds
        rig.now += COOLDOWN_SECONDS


def test_an_unknown_key_id_while_the_issuer_is_away_is_not_the_users_fault(rig: Rig) -> None:
    rig.keys.refresh()
    rig.issuer.add_key("rsa-2", "RS256")
    rig.fetcher.fails = True
    rig.now += COOLDOWN_SECONDS
    assert code_of(rig.tokens, rig.issuer.token("rsa-2")) == "token_keys_unavailable"


def test_a_token_without_a_key_id_needs_a_set_of_one(rig: Rig) -> None:
    _, key = rig.issuer.keys["rsa-1"]
    plain = jwt.encode(claims(), key, "RS256")
    rig.keys.refresh()
    assert code_of(rig.tokens, plain) == "wrong_token"
    del rig.issuer.keys["ec-1"]
    rig.keys.refresh()
    assert check(rig.tokens, plain).name == "user-1"


# The network.


def test_the_thread_fetches_at_the_start_and_again(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_set, "REFRESH_SECONDS", 0.02)
    with serving(issuer) as address:
        keys = KeySet(address)
        before = issuer.fetches
        keys.start()
        try:
            deadline = time.monotonic() + 20
            while issuer.fetches < before + 3 and time.monotonic() < deadline:
                check(Tokens(RULES, keys), issuer.token("ec-1"))
        finally:
            keys.stop()
        assert issuer.fetches >= before + 3


@pytest.mark.parametrize(
    ("answer", "location"),
    [((302, b""), "http://127.0.0.1:9/keys"), ((500, b"{}"), ""), ((200, b"x" * (key_set.LARGEST_SET_BYTES + 1)), "")],
    ids=["a redirect", "an error", "an endless answer"],
)
def test_an_odd_answer_of_the_server_is_not_taken(answer: tuple[int, bytes], location: str) -> None:
    odd = Issuer()
    odd.answer, odd.location = answer, location
    with serving(odd) as address, pytest.raises(KeySetUnreadable):
        fetch_key_set(address)
    assert odd.fetches == 1


def test_a_silent_or_absent_server_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_set, "FETCH_SECONDS", 0.1)
    silent = Issuer()
    silent.held.clear()
    with serving(silent) as address:
        keys = KeySet(address)
        assert not keys.refresh()
    assert not keys.refresh()
    assert keys.problem is not None
