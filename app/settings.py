"""Every environment variable of the service: typed, bounded, each with its unit, and read only at the entrances.

`.env.example` lists the same names (a test compares them). Nothing else in `app` reads the environment; parts get plain
values handed down by `main`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import unquote

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)

from app.options import EngineName
from app.setting_values import (
    HOST_PATTERN,
    ORIGIN_PATTERN,
    ApiKey,
    check_addresses,
    check_form,
    check_keys,
    check_networks,
    check_secure_address,
    check_tile,
    check_tokens,
    is_loopback_host,
    open_to_strangers,
    password_in,
    split_key,
    usual_file_megabytes,
    web_origins,
)
from app.siliconflow_settings import SiliconFlowSettings

SECRETS_FOLDER = Path("/run/secrets")  # where Docker, Podman and Kubernetes mount secrets as files
MEGABYTE = 1024 * 1024
MIN_SECRET_BYTES = 32
MOST_MEGABYTES = 1_000_000_000  # a petabyte: its bytes are a whole number in JSON too
MOST_RETENTION_MINUTES = 52_560_000  # a hundred years
MOST_INTERVAL_MINUTES = 44_640  # a month: within what threads can wait on every platform


class Settings(SiliconFlowSettings):
    """The service's settings. Read from the environment, then `.env`, then files named as settings in `SECRETS_FOLDER`.

    Unknown names in `.env` are refused; other files among the secrets are not ours.
    """

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        extra="forbid",
        env_ignore_empty=True,
        hide_input_in_errors=True,  # else a mistyped key stands in the trace
        allow_inf_nan=False,  # of any setting: JSON has neither, and no thread can wait for ever
    )

    # who may use it
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        default=(),
        alias="API_KEY",
        description="keys, name:key or name:role:key, separated by commas; empty and no tokens: open, loopback only",
    )
    jwt_secret: SecretStr = Field(default=SecretStr(""), description="secret shared with the issuer of tokens (HS256)")
    jwt_jwks_url: str = Field(default="", description="address of the issuer's public keys (RS256, ES256)")
    jwt_issuer: str = Field(default="", max_length=1000, description="the iss that a token must have, exactly")
    jwt_audience: str = Field(default="", max_length=1000, description="the aud that a token must have or list")
    jwt_admin_claim: str = Field(default="", max_length=1000, description="claim=value of tokens with the role admin")
    session_secret: SecretStr = Field(
        default=SecretStr(""), description="signs session cookies; the same on all servers"
    )
    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8001, ge=1, le=65535, description="port of the API")
    dashboard_port: int = Field(default=8091, ge=1, le=65535, description="port of the dashboard")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Host names that requests may carry besides loopback; empty with a key set: any"
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(default=(), description="origins of other web pages")
    forwarded_allow_ips: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="addresses or networks of reverse proxies whose X-Forwarded-For is believed; * for any"
    )
    rate_limit: str = Field(default="600/minute", description="requests of one key, such as 600/minute; 0: no limit")

    # limits
    max_file_size_mb: float | None = Field(
        default=None, gt=0, le=4096, description="size of one upload, megabytes; empty: 10, on loopback alone 100"
    )
    max_batch_size: int = Field(default=50, ge=1, le=50, description="photos in one job")
    max_input_megapixels: float = Field(default=40, gt=0, le=2000)
    max_output_megapixels: float = Field(default=400, gt=0, le=10_000)
    queue_limit: int = Field(default=100, ge=1, le=100_000, description="photos waiting")
    queue_limit_per_owner: int = Field(
        default=20, ge=1, le=100_000, description="photos of one key waiting; no limit without keys"
    )
    quota_photos_per_day: int = Field(
        default=0, ge=0, le=10_000_000, description="photos of one key or user a day (UTC); 0: any number"
    )
    max_concurrent_uploads: int = Field(
        default=10, ge=0, le=1000, description="uploads of one key or user at once, each server; 0: any number"
    )
    decode_timeout_seconds: float = Field(default=20, gt=0, le=600)
    decode_memory_mb: int = Field(default=2048, ge=256, le=65_536)
    hang_timeout_seconds: float = Field(
        default=300, ge=10, le=86_400, description="silence after which a restoration counts as hung"
    )
    drain_seconds: float = Field(default=30, ge=0, le=3600, description="how long SIGTERM waits for the running photo")
    min_free_disk_mb: int = Field(
        default=512, ge=0, le=MOST_MEGABYTES, description="free disk below which uploads are refused"
    )

    clamd_url: str = Field(
        default="", description="clamd that scans every upload: tcp://host:port or a socket's path; empty: no scan"
    )
    clamd_timeout_seconds: float = Field(default=30, ge=1, le=600, description="for one file")
    result_cache: Literal["off", "owner", "all"] = Field(default="off", description="whose results answer equal jobs")

    # where things live
    upload_folder: Path = Path("temp_uploads")
    processed_folder: Path = Path("processed_images")
    weights_folder: Path = Path("weights")
    database_url: str = Field(
        default="sqlite:///data/jobs.sqlite3",
        repr=False,  # it may hold a password
        description="SQLAlchemy address of an SQLite file or a PostgreSQL database",
    )
    broker_url: str = Field(
        default="",
        repr=False,  # it may hold a password
        description="empty: the queue in this process; redis://HOST:PORT/NUMBER: a Redis server for several machines",
    )
    storage_url: str = Field(
        default="", description="empty: the two folders; s3://bucket or s3://bucket/prefix: a bucket of an S3 server"
    )
    shared_folders: bool = Field(default=False, description="the two folders are one file system for all hosts")
    s3_endpoint_url: str = Field(default="", description="address of the S3 server; empty: AWS")
    s3_public_endpoint_url: str = Field(
        default="", description="address of the S3 server as browsers and providers reach it"
    )
    s3_region: str = Field(default="", pattern=r"^[a-z0-9-]*$", description="empty: what the AWS configuration says")
    s3_addressing_style: Literal["auto", "path", "virtual"] = "auto"
    s3_checksums: Literal["when_supported", "when_required"] = "when_supported"
    result_delivery: Literal["stream", "redirect"] = Field(
        default="stream", description="redirect: results are fetched from the S3 server by signed addresses"
    )
    retention_minutes: float = Field(default=60, gt=0, le=MOST_RETENTION_MINUTES)
    keep_limit_mb_per_owner: int = Field(
        default=2048, ge=0, le=MOST_MEGABYTES, description="of jobs kept past that; 0: none"
    )
    storage_limit_mb_per_owner: int = Field(
        default=0, ge=0, le=MOST_MEGABYTES, description="of all photos and results of one key or user; 0: no limit"
    )
    janitor_interval_minutes: float = Field(default=30, gt=0, le=MOST_INTERVAL_MINUTES)

    # the networks
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    tile_size: int = Field(
        default=0, ge=0, le=4096, description="pixels a side, from 32 on; 0: chosen by device, network and memory"
    )
    idle_release_minutes: float = Field(
        default=10, ge=0, le=10_080, description="time without work after which a card's memory is given back; 0: never"
    )
    engine: EngineName = EngineName.FAST
    default_quality: Literal["auto", "fast", "balanced", "best"] = "auto"
    face_detector: Literal["auto", "resnet50", "mobilenet"] = Field(
        default="auto", description="what looks for faces; auto: resnet50, or mobilenet where only that is installed"
    )
    weights_base_url: str = Field(default="", description="mirror that holds the weight files under their own names")
    offline: bool = Field(default=False, description="download nothing")
    allow_model_downloads: bool = Field(default=True, description="operators may install models through the API")
    allow_unverified_weights: bool = False

    # webhooks
    webhook_secrets: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        default=(),
        alias="WEBHOOK_SECRET",
        description="what webhooks are signed with (whsec_ and base64), or several; empty: no webhooks",
    )
    webhook_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="hosts that webhooks may go to, *.name, or origins of an own network; empty: any public",
    )

    # what is told to operators
    log_format: Literal["text", "json"] = "text"
    worker_metrics_port: int = Field(default=0, ge=0, le=65535, description="metrics of run.py worker; 0: nowhere")
    otel_exporter_otlp_endpoint: str = Field(
        default="", description="address of an OpenTelemetry collector (OTLP over HTTP); empty: no traces"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Secrets in files come last, and only where their folder is: else its absence would be warned of."""
        named = init_settings, env_settings, dotenv_settings
        return (*named, SecretsSettingsSource(settings_cls, SECRETS_FOLDER)) if SECRETS_FOLDER.is_dir() else named

    @field_validator(
        "api_keys",
        "allowed_hosts",
        "cors_origins",
        "forwarded_allow_ips",
        "siliconflow_result_hosts",
        "webhook_secrets",
        "webhook_hosts",
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("siliconflow_api_url", "jwt_jwks_url")
    @classmethod
    def _safe_to_rely_on(cls, value: str, field: ValidationInfo) -> str:
        """Keys go to the one and come from the other, so nobody on the way may read or change anything."""
        if value or field.field_name == "siliconflow_api_url":
            check_secure_address(str(field.field_name).upper(), value)
        return value

    @field_validator("jwt_secret", "session_secret")
    @classmethod
    def _long_enough(cls, value: SecretStr, field: ValidationInfo) -> SecretStr:
        if value and len(value.get_secret_value().encode()) < MIN_SECRET_BYTES:
            name = str(field.field_name).upper()
            raise ValueError(f"{name} must have at least {MIN_SECRET_BYTES} bytes; make one: openssl rand -hex 32")
        return value

    @field_validator(
        "rate_limit", "jwt_admin_claim", "clamd_url", "broker_url", "storage_url", "otel_exporter_otlp_endpoint"
    )
    @classmethod
    def _has_its_form(cls, value: str, field: ValidationInfo) -> str:
        check_form(str(field.field_name), value)
        return value

    @field_validator("tile_size")
    @classmethod
    def _is_a_tile(cls, value: int) -> int:
        check_tile(value)
        return value

    @field_validator("forwarded_allow_ips")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        check_networks("FORWARDED_ALLOW_IPS", value)
        return value

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return web_origins("CORS_ORIGINS", value)

    @field_validator("s3_endpoint_url", "s3_public_endpoint_url")
    @classmethod
    def _is_an_origin(cls, value: str) -> str:
        if value and not ORIGIN_PATTERN.fullmatch(value):
            raise ValueError("an S3 endpoint must be scheme and host with an optional port, as https://s3.example.com")
        return value.rstrip("/")

    @field_validator("webhook_secrets")
    @classmethod
    def _can_sign(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for secret in value:
            check_form("webhook_secrets", secret.get_secret_value())
        return value

    @field_validator("webhook_hosts")
    @classmethod
    def _are_hosts_or_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        hosts = tuple(host.lower().rstrip("/") for host in value)
        if not all(HOST_PATTERN.fullmatch(host) or ORIGIN_PATTERN.fullmatch(host) for host in hosts):
            names = "hooks.example.com or *.example.com, or origins of your own network such as http://10.0.0.5:8080"
            raise ValueError(f"WEBHOOK_HOSTS must be host names such as {names}")
        return hosts

    @field_validator("*")
    @classmethod
    def _can_be_reached(cls, value: object, field: ValidationInfo) -> object:
        check_addresses(str(field.field_name), value)
        return value

    @model_validator(mode="after")
    def _can_redirect(self) -> Self:
        if self.result_delivery == "redirect" and not self.storage_url:
            raise ValueError("RESULT_DELIVERY=redirect needs a bucket; set STORAGE_URL, or use stream")
        return self

    @model_validator(mode="after")
    def _whole_tokens(self) -> Self:
        told = (self.jwt_issuer, self.jwt_audience, self.jwt_admin_claim)
        check_tokens(*told, by_secret=bool(self.jwt_secret), by_key_set=bool(self.jwt_jwks_url))
        return self

    @model_validator(mode="after")
    def _whole_keys(self) -> Self:
        check_keys(self.keys)
        return self

    @property
    def keys(self) -> tuple[ApiKey, ...]:
        """The keys of `API_KEY`, with their names and roles."""
        return tuple(split_key(entry.get_secret_value()) for entry in self.api_keys)

    @property
    def accepts_tokens(self) -> bool:
        """Whether an issuer of tokens is set."""
        return bool(self.jwt_secret or self.jwt_jwks_url)

    @property
    def has_users(self) -> bool:
        """Whether only those with a key or a token may use the service."""
        return bool(self.api_keys) or self.accepts_tokens

    @property
    def too_open(self) -> str | None:
        """Why HTTP must not be served with these settings, in a sentence; None where it may. Others need no key."""
        return None if self.has_users else open_to_strangers(self.cors_origins, self.is_loopback)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        return is_loopback_host(self.host)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not stand in any log: keys, secrets, and the passwords of the database and of Redis."""
        others = self.siliconflow_api_key, self.jwt_secret, self.session_secret, *self.webhook_secrets
        keys = [*(entry.key for entry in self.keys), *(secret.get_secret_value() for secret in others)]
        passwords = [unquote(password_in(name, getattr(self, name))) for name in ("database_url", "broker_url")]
        return tuple(secret for secret in (*keys, *passwords) if secret)

    @property
    def max_file_size_bytes(self) -> int:
        """Size limit of one uploaded file; scans are large, so it is wider where nobody else can send any."""
        alone = self.is_loopback and not (self.forwarded_allow_ips or self.allowed_hosts)
        return int((self.max_file_size_mb or usual_file_megabytes(alone)) * MEGABYTE)
