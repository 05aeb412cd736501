"""Settings: bounds, the refusal to bind openly, and that `.env.example` and the docs name every one of them."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
import math
import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from app import settings
from app.api.auth.rate_limits import parse_rate
from app.commands import configure, serve
from app.commands.doctor_machine import BAD, check_ports
from app.errors import Conflict
from app.exit_codes import EXIT_BAD_SETTINGS
from app.main import create_app
from app.options import Quality
from app.restoration import tiling
from app.setting_values import LEAST_TILE_PIXELS
from app.settings import MEGABYTE, Settings

ROOT = Path(__file__).resolve().parents[1]
KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in names():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def names() -> list[str]:
    """Every setting's name in the environment."""
    return [str(field.alias or name).upper() for name, field in Settings.model_fields.items()]


def example_lines() -> dict[str, str]:
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    return dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))


def test_the_example_names_every_setting_and_no_other() -> None:
    assert set(example_lines()) == set(names())


def test_the_example_holds_the_defaults(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text((ROOT / ".env.example").read_text(encoding="utf-8"), encoding="utf-8")
    from_example = Settings()
    (tmp_path / ".env").unlink()
    assert from_example == Settings()


def test_every_setting_of_the_example_is_explained() -> None:
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    for before, line in itertools.pairwise(lines):
        if re.match(r"[A-Z0-9_]+=", line):
            assert before.startswith("# "), f"{line} stands without a comment"


def test_the_configuration_page_names_every_setting_and_no_other() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    section = text.split("\n## Settings\n", 1)[1].split("\n## ", 1)[0]
    rows = dict(re.findall(r"^\| `([A-Z0-9_]+)` \| (.*?) \|", section, re.MULTILINE))
    assert set(rows) == set(names())
    told = {name: value.strip().strip("`").replace("(empty)", "") for name, value in rows.items()}
    assert told == example_lines()


def test_without_a_key_only_loopback_is_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.9.9.9"):
        monkeypatch.setenv("HOST", host)
        assert Settings().is_loopback
        assert Settings().too_open is None
    for host in ("0.0.0.0", "::", "192.168.1.4", "example.org", ""):
        monkeypatch.setenv("HOST", host)
        if host:
            assert "API_KEY must be set" in (Settings().too_open or "")
        else:
            assert Settings().host == "127.0.0.1"  # an empty value means the default


@pytest.mark.parametrize(
    ("setting", "value", "megabytes"),
    [
        ("HOST", "127.0.0.1", 100),
        ("HOST", "0.0.0.0", 10),
        ("FORWARDED_ALLOW_IPS", "127.0.0.1", 10),
        ("ALLOWED_HOSTS", "photos.example.org", 10),
        ("MAX_FILE_SIZE_MB", "", 100),
        ("MAX_FILE_SIZE_MB", "7.5", 7.5),
    ],
)
def test_scans_may_be_larger_where_no_other_machine_can_send_any(
    monkeypatch: pytest.MonkeyPatch, setting: str, value: str, megabytes: float
) -> None:
    monkeypatch.setenv("API_KEY", KEY)
    monkeypatch.setenv(setting, value)
    assert Settings().max_file_size_bytes == megabytes * 1024 * 1024


@pytest.mark.parametrize(("setting", "value"), [("HOST", "0.0.0.0"), ("CORS_ORIGINS", "*")])
def test_only_what_listens_needs_a_key(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], setting: str, value: str
) -> None:
    """An image fetches its weights, and a worker restores, with the settings of the servers and without their key."""
    monkeypatch.setenv(setting, value)
    settings = configure.read_settings()
    assert settings.host == "0.0.0.0" or "*" in settings.cors_origins
    for restores in (True, False):
        with pytest.raises(SystemExit) as ended:
            serve.run(download=False, restores=restores)
        assert ended.value.code == EXIT_BAD_SETTINGS
        assert "API_KEY must be set" in capsys.readouterr().err
    with pytest.raises(Conflict, match="API_KEY must be set"):
        create_app(settings)
    assert next(check_ports(settings)).word == BAD
    monkeypatch.setattr(serve, "die_with", lambda _: None)
    with pytest.raises(SystemExit):
        serve.run_child(0)


def test_with_a_key_any_address_may_be_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", "0.0.0.0")
    monkeypatch.setenv("API_KEY", f" {KEY} , {KEY[::-1]},")
    settings = Settings()
    assert [key.get_secret_value() for key in settings.api_keys] == [KEY, KEY[::-1]]
    assert KEY not in repr(settings)


def test_every_page_may_call_only_where_a_key_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORS_ORIGINS", "https://a.example,*")
    assert "API_KEY must be set" in (Settings().too_open or "")
    monkeypatch.setenv("API_KEY", KEY)
    assert Settings().too_open is None
    assert Settings().cors_origins == ("https://a.example", "*")


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ("https://Photos.Example.org/", "https://photos.example.org"),
        ("HTTPS://photos.example.org:443", "https://photos.example.org"),
        ("http://[fd00::5]:80/", "http://[fd00::5]"),
        ("http://photos.example.org:443", "http://photos.example.org:443"),
        ("http://localhost:3000", "http://localhost:3000"),
    ],
)
def test_an_origin_is_kept_as_browsers_send_it(monkeypatch: pytest.MonkeyPatch, typed: str, sent: str) -> None:
    monkeypatch.setenv("CORS_ORIGINS", typed)
    assert Settings().cors_origins == (sent,)


@pytest.mark.parametrize("origin", ["photos.example.org", "https://a.example/page", "null", "https://*.a.example"])
def test_what_is_no_origin_is_refused(monkeypatch: pytest.MonkeyPatch, origin: str) -> None:
    monkeypatch.setenv("CORS_ORIGINS", f"https://a.example, {origin}")
    with pytest.raises(ValidationError, match="CORS_ORIGINS must be origins"):
        Settings()


def test_proxies_are_read_from_the_file_like_every_setting(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("FORWARDED_ALLOW_IPS=127.0.0.1, 172.18.0.0/16,fd00::/8\n", encoding="utf-8")
    assert Settings().forwarded_allow_ips == ("127.0.0.1", "172.18.0.0/16", "fd00::/8")


def test_all_secrets_are_named_for_the_log_to_redact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", KEY)
    monkeypatch.setenv("SILICONFLOW_API_KEY", KEY[::-1])
    monkeypatch.setenv("DATABASE_URL", "postgresql+psycopg://me:pass%40word@db/jobs")
    assert Settings().secrets == (KEY, KEY[::-1], "pass@word")
    assert "pass" not in repr(Settings())
    monkeypatch.setenv("DATABASE_URL", "sqlite:///data/jobs.sqlite3")
    assert Settings().secrets == (KEY, KEY[::-1])


def test_a_short_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "x" * 15)
    with pytest.raises(ValidationError, match="at least 16 characters"):
        Settings()


def test_keys_may_have_names_and_roles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", f"{KEY},kay:{KEY[1:]},ops.1:admin:{KEY[2:]},admin:{KEY[3:]},user:user:{KEY[4:]}")
    found = Settings()
    assert [(key.name, key.role) for key in found.keys] == [
        ("", ""), ("kay", ""), ("ops.1", "admin"), ("admin", ""), ("user", "user"),
    ]  # fmt: skip
    assert [key.key for key in found.keys] == [KEY[number:] for number in range(5)]
    assert set(found.secrets) == {key.key for key in found.keys}  # a name may stand in a log
    assert KEY[4:] not in repr(found)


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        (f"kay:boss:{KEY}", "no colon in a key"),
        (f"kay:admin:{KEY}:x", "no colon in a key"),
        (f":{KEY}", "names of letters"),
        (f"k y:{KEY}", "names of letters"),
        (f"{'k' * 33}:{KEY}", "names of letters"),
        ("kay:admin:short", "at least 16 characters"),
        (f"kay:{KEY},kay:{KEY[::-1]}", "two keys alike"),
        (f"kay:{KEY},lee:{KEY}", "one key with two names"),
        (f"{KEY},kay:admin:{KEY}", "one key with two names"),
    ],
)
def test_odd_keys_are_refused_with_a_sentence(keys: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", keys)
    with pytest.raises(ValidationError, match=sentence) as refused:
        Settings()
    assert KEY not in str(refused.value)


TOKENS = {"JWT_ISSUER": "https://id.example.org/", "JWT_AUDIENCE": "photos"}


def test_tokens_stand_for_keys_where_one_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**TOKENS, "JWT_SECRET": KEY, "HOST": "0.0.0.0", "CORS_ORIGINS": "*"}.items():
        monkeypatch.setenv(name, value)
    found = Settings()
    assert (found.has_users, found.accepts_tokens, found.jwt_issuer) == (True, True, "https://id.example.org/")
    assert KEY in found.secrets
    assert KEY not in repr(found)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({**TOKENS, "JWT_SECRET": KEY, "JWT_JWKS_URL": "https://id.example.org/keys"}, "exclude each other"),
        ({"JWT_SECRET": KEY}, "JWT_ISSUER and JWT_AUDIENCE"),
        ({"JWT_SECRET": KEY, "JWT_ISSUER": "x"}, "JWT_ISSUER and JWT_AUDIENCE"),
        (TOKENS, "need JWT_SECRET or JWT_JWKS_URL"),
        ({"JWT_ADMIN_CLAIM": "role=admin"}, "need JWT_SECRET or JWT_JWKS_URL"),
        ({**TOKENS, "JWT_SECRET": KEY[:31]}, "JWT_SECRET must have at least 32 bytes"),
        ({"SESSION_SECRET": KEY[:31]}, "SESSION_SECRET must have at least 32 bytes"),
        ({**TOKENS, "JWT_SECRET": KEY, "JWT_ADMIN_CLAIM": "admin"}, "must be claim=value"),
        ({**TOKENS, "JWT_SECRET": KEY, "JWT_ADMIN_CLAIM": "=admin"}, "must be claim=value"),
        ({**TOKENS, "JWT_JWKS_URL": "http://id.example.org/keys"}, "JWT_JWKS_URL must be a whole address"),
        ({**TOKENS, "JWT_JWKS_URL": "https://me:word@id.example.org/keys"}, "JWT_JWKS_URL must be a whole address"),
        ({**TOKENS, "JWT_JWKS_URL": "file:///etc/keys.json"}, "JWT_JWKS_URL must be a whole address"),
    ],
)
def test_half_or_unsafe_settings_of_tokens_are_refused(
    given: dict[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError, match=sentence) as refused:
        Settings()
    assert KEY not in str(refused.value)


@pytest.mark.parametrize("address", ["https://id.example.org/keys", "http://127.0.0.1:9/k", "http://localhost/k"])
def test_keys_of_an_issuer_come_by_https_or_from_this_machine(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**TOKENS, "JWT_JWKS_URL": address, "JWT_ADMIN_CLAIM": "https://x/roles=admin"}.items():
        monkeypatch.setenv(name, value)
    assert Settings().jwt_jwks_url == address


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("PORT", "0"),
        ("DASHBOARD_PORT", "http"),
        ("MAX_FILE_SIZE_MB", "0"),
        ("MAX_FILE_SIZE_MB", "nan"),
        ("MAX_BATCH_SIZE", "51"),
        ("MAX_INPUT_MEGAPIXELS", "0"),
        ("MAX_OUTPUT_MEGAPIXELS", "inf"),
        ("QUEUE_LIMIT", "0"),
        ("DECODE_TIMEOUT_SECONDS", "601"),
        ("DECODE_MEMORY_MB", "255"),
        ("HANG_TIMEOUT_SECONDS", "9"),
        ("DRAIN_SECONDS", "-1"),
        ("MIN_FREE_DISK_MB", "-1"),
        ("RETENTION_MINUTES", "0"),
        ("RETENTION_MINUTES", "52560001"),
        ("JANITOR_INTERVAL_MINUTES", "0"),
        ("JANITOR_INTERVAL_MINUTES", "44641"),
        ("DEVICE", "gpu"),
        ("DEVICE", "cuda:"),
        ("PRECISION", "int8"),
        ("TILE_SIZE", "4097"),
        ("TILE_SIZE", "1"),
        ("TILE_SIZE", "31"),
        ("TILE_SIZE", "-1"),
        ("ENGINE", "slow"),
        ("DEFAULT_QUALITY", "great"),
        ("OFFLINE", "maybe"),
        ("SILICONFLOW_TIMEOUT", "0"),
        ("LOG_FORMAT", "xml"),
        ("FORWARDED_ALLOW_IPS", "proxy.example.org"),
    ],
)
def test_a_value_out_of_bounds_is_refused(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError):
        Settings()


# The rules that hold for every setting of a kind, whatever its name: a new one is held to them by itself.


def numbers(kind: type[float] | type[int]) -> list[str]:
    """The fields that hold a number of this kind, or none."""
    return [
        name
        for name, field in Settings.model_fields.items()
        if kind in (get_args(field.annotation) or (field.annotation,))
    ]


def bounds(name: str) -> tuple[float, float]:
    """The least and the largest value that a number may have, as its field says; infinite where it says nothing."""
    low, high = -math.inf, math.inf
    for rule in Settings.model_fields[name].metadata:
        low = max(low, getattr(rule, "ge", low), getattr(rule, "gt", low))
        high = min(high, getattr(rule, "le", high), getattr(rule, "lt", high))
    return low, high


def test_the_search_for_numbers_finds_them() -> None:
    assert {"retention_minutes", "janitor_interval_minutes", "max_file_size_mb"} <= set(numbers(float))
    assert {"port", "min_free_disk_mb", "storage_limit_mb_per_owner"} <= set(numbers(int))


@pytest.mark.parametrize("word", ["inf", "-inf", "Infinity", "nan", "1e400", "1" + "0" * 30])
@pytest.mark.parametrize("name", [*numbers(float), *numbers(int)])
def test_no_number_is_infinite_or_none_or_beyond_all_use(name: str, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name.upper(), word)
    with pytest.raises(ValidationError):
        Settings()


@pytest.mark.parametrize("name", [*numbers(float), *numbers(int)])
def test_every_number_has_two_bounds_that_are_whole_in_json(name: str) -> None:
    low, high = bounds(name)
    assert 0 <= low < high
    assert high * (MEGABYTE if "_mb" in name else 1) < 2**53


def test_the_longest_times_are_within_what_threads_and_dates_take() -> None:
    assert bounds("janitor_interval_minutes")[1] * 60 < 2**32 / 1000  # what Windows waits for at most
    assert datetime.datetime.fromtimestamp(bounds("retention_minutes")[1] * 60 + 2e9, datetime.UTC).year < 2200
    longest = Settings(retention_minutes=bounds("retention_minutes")[1])
    assert json.loads(json.dumps(longest.retention_minutes * 60)) == longest.retention_minutes * 60


def test_what_is_not_finite_is_refused_in_plain_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RETENTION_MINUTES", "inf")
    with pytest.raises(SystemExit):
        configure.read_settings()
    assert "RETENTION_MINUTES: Input should be a finite number" in capsys.readouterr().err


PLACES = ("h.example", "10.0.0.5", "[::1]")
ADDRESSES = ("tcp://{}", "redis://:word@{}/0", "https://{}", "http://{}/v1/x", "postgresql+psycopg://me:word@{}/jobs")
WORDS = {
    "jwt_issuer",
    "jwt_audience",
    "jwt_admin_claim",
    "siliconflow_model",
    "host",
    "device",
    "s3_region",
}  # no addresses


def addresses() -> list[tuple[str, str]]:
    """Each setting of text or texts that takes an address with a port, and the form that it takes."""
    found = []
    texts = [name for name, field in Settings.model_fields.items() if field.annotation in (str, tuple[str, ...])]
    for name, form in itertools.product(sorted(set(texts) - WORDS), ADDRESSES):
        with contextlib.suppress(ValidationError):
            with_address(name, form.format("10.0.0.5:8443"))
            found.append((name, form))
    return found


def with_address(name: str, address: str) -> Settings:
    """Settings with this address, and what some of them need beside it."""
    beside = {"jwt_issuer": "x", "jwt_audience": "x"} if name == "jwt_jwks_url" else {}
    return Settings.model_validate({**beside, name: address, "_env_file": None})


def test_the_search_for_addresses_finds_them() -> None:
    assert {name for name, _ in addresses()} >= {
        "broker_url", "clamd_url", "cors_origins", "database_url", "jwt_jwks_url", "otel_exporter_otlp_endpoint",
        "s3_endpoint_url", "s3_public_endpoint_url", "siliconflow_api_url", "webhook_hosts", "weights_base_url",
    }  # fmt: skip


@pytest.mark.parametrize(("name", "form"), addresses())
def test_every_port_of_an_address_exists(name: str, form: str) -> None:
    for port in ("1", "65535"):
        with_address(name, form.format(f"10.0.0.5:{port}"))
    for place, port in itertools.product(PLACES, ("0", "65536", "99999", "99999999999999999999", "-1", "x", "8 0")):
        with pytest.raises(ValidationError, match=r"ports are 1 to 65535|must be"):
            with_address(name, form.format(f"{place}:{port}"))


@pytest.mark.parametrize(("name", "form"), addresses())
def test_brackets_of_an_address_hold_one(name: str, form: str) -> None:
    with_address(name, form.format("[fd00::5]:8443"))
    for place in ("[:::1]", "[1:2]", "[]", "[fd00::5"):
        with pytest.raises(ValidationError, match=r"as in \[::1\]|must be|ports are"):
            with_address(name, form.format(f"{place}:8443"))


@pytest.mark.parametrize("address", ["postgresql+psycopg://me:pa/ss:99999@db/jobs", "sqlite:///data/a@b:99999.sqlite3"])
def test_a_password_and_a_path_are_no_ports(address: str) -> None:
    found = Settings(database_url=address)
    assert found.secrets == (("pa/ss:99999",) if "pa" in address.partition("@")[0] else ())


@pytest.mark.parametrize("rate", ["0", "600/minute", "10/second", "5 per 2 hours", "1000/DAY"])
def test_rates_that_the_service_can_count_are_taken(rate: str) -> None:
    assert Settings(rate_limit=rate).rate_limit == rate
    parse_rate(rate)


@pytest.mark.parametrize("rate", ["often", "0/minute", "-5/minute", "1.5/minute", "10/fortnight", "inf/minute", "10"])
def test_a_rate_that_lets_nobody_in_or_says_nothing_is_refused(rate: str) -> None:
    with pytest.raises(ValidationError, match="RATE_LIMIT must be like"):
        Settings(rate_limit=rate)


def test_the_default_quality_may_be_every_quality_there_is() -> None:
    assert get_args(Settings.model_fields["default_quality"].annotation) == ("auto", *Quality)


@pytest.mark.parametrize("pixels", [0, LEAST_TILE_PIXELS, 4096])
def test_a_tile_is_chosen_or_as_large_as_the_restoration_cuts(pixels: int) -> None:
    assert Settings(tile_size=pixels).tile_size == pixels
    assert LEAST_TILE_PIXELS == tiling.MIN_TILE_PIXELS


def test_an_unknown_name_in_the_file_is_refused_in_plain_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".env").write_text(f"PROT=8001\nAPI_KEY={KEY[:10]}\n", encoding="utf-8")
    with pytest.raises(SystemExit) as left:
        configure.read_settings()
    said = capsys.readouterr().err
    assert left.value.code == EXIT_BAD_SETTINGS
    assert "PROT: there is no setting of this name" in said
    assert KEY[:10] not in said


def test_a_bad_value_is_told_by_name_and_without_the_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PORT", "99999")
    monkeypatch.setenv("API_KEY", "hunter2hunter2")
    with pytest.raises(SystemExit):
        configure.read_settings()
    said = capsys.readouterr().err
    assert "PORT: " in said
    assert "hunter2" not in said
    assert "Traceback" not in said


def test_a_secret_may_be_a_file_that_the_environment_and_env_file_win_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    monkeypatch.setattr(settings, "SECRETS_FOLDER", secrets)
    (secrets / "api_key").write_text(f"{KEY},{KEY[::-1]}\n")
    (secrets / "siliconflow_api_key").write_text("sk-from-a-file\n")
    (secrets / "database_url").write_text("sqlite:///from-a-file.sqlite3\n")
    (secrets / "s3_credentials").write_text("[default]\n")  # read by others
    found = Settings()
    assert [key.get_secret_value() for key in found.api_keys] == [KEY, KEY[::-1]]
    assert found.siliconflow_api_key.get_secret_value() == "sk-from-a-file"
    assert found.database_url == "sqlite:///from-a-file.sqlite3"
    (tmp_path / ".env").write_text("DATABASE_URL=sqlite:///from-env-file.sqlite3\n")
    monkeypatch.setenv("SILICONFLOW_API_KEY", "sk-from-the-environment")
    found = Settings()
    assert found.database_url == "sqlite:///from-env-file.sqlite3"
    assert found.siliconflow_api_key.get_secret_value() == "sk-from-the-environment"
    monkeypatch.setattr(settings, "SECRETS_FOLDER", tmp_path / "none")
    assert Settings().api_keys == ()
