"""Settings: bounds, the refusal to bind openly, and that `.env.example` and the docs name every one of them."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from app import settings
from app.commands import configure
from app.exit_codes import EXIT_BAD_SETTINGS
from app.options import Quality
from app.settings import Settings

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
    for host in ("0.0.0.0", "::", "192.168.1.4", "example.org", ""):
        monkeypatch.setenv("HOST", host)
        if host:
            with pytest.raises(ValidationError, match="API_KEY must be set"):
                Settings()
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


def test_with_a_key_any_address_may_be_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", "0.0.0.0")
    monkeypatch.setenv("API_KEY", f" {KEY} , {KEY[::-1]},")
    settings = Settings()
    assert [key.get_secret_value() for key in settings.api_keys] == [KEY, KEY[::-1]]
    assert KEY not in repr(settings)


def test_every_page_may_call_only_where_a_key_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORS_ORIGINS", "https://a.example,*")
    with pytest.raises(ValidationError, match="API_KEY must be set"):
        Settings()
    monkeypatch.setenv("API_KEY", KEY)
    assert Settings().cors_origins == ("https://a.example", "*")


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
        ("JANITOR_INTERVAL_MINUTES", "0"),
        ("DEVICE", "gpu"),
        ("DEVICE", "cuda:"),
        ("PRECISION", "int8"),
        ("TILE_SIZE", "4097"),
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


def test_the_default_quality_may_be_every_quality_there_is() -> None:
    assert get_args(Settings.model_fields["default_quality"].annotation) == ("auto", *Quality)


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
