"""Settings: the only reader of the environment. `main` and `cli` build one; nothing reads it at import."""

import os
import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.errors import ConfigurationError

_ORIGIN = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:\d{1,5})?")
_HOST_PATTERN = re.compile(r"(\*\.)?[a-z0-9_.-]+|[0-9a-f:]+")


def _split(given: object) -> object:
    return tuple(filter(None, (part.strip().lower() for part in given.split(",")))) if isinstance(given, str) else given


def _check_origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    if "*" not in origins and any(not _ORIGIN.fullmatch(origin) for origin in origins):
        advice = "list origins like https://grafana.example.com, without a path and with commas between, or *"
        raise ValueError(advice)
    return origins


def _check_hosts(patterns: tuple[str, ...]) -> tuple[str, ...]:
    patterns = tuple(pattern.strip("[]") for pattern in patterns)
    if any(pattern != "*" and not _HOST_PATTERN.fullmatch(pattern) for pattern in patterns):
        advice = "list names like tidemark.example.com or *.example.com, without a port and with commas between, or *"
        raise ValueError(advice)
    return patterns


_List = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


class Settings(BaseSettings):
    """Every setting, with its default; `.env.example` and the README list the same ones."""

    model_config = SettingsConfigDict(
        env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True, populate_by_name=True
    )

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on.")
    workers: int = Field(1, ge=1, le=256, description="Processes that serve, each with models in its own memory.")
    shutdown_delay_s: float = Field(
        0.0,
        ge=0,
        le=3600,
        description="Seconds after SIGTERM that requests are still taken while /readyz says 503, for load balancers.",
    )
    allowed_hosts: Annotated[_List, AfterValidator(_check_hosts)] | None = Field(
        None,
        description=(
            "Names under which it may be called, with commas between: tidemark.example.com, *.example.com. "
            "Default: any; on loopback without keys those that no web site can have."
        ),
    )
    cors_origins: Annotated[_List, AfterValidator(_check_origins)] | None = Field(
        None,
        description=(
            "Origins whose pages may call it by script, with commas between: https://grafana.example.com; "
            "or * for all. Default: none."
        ),
    )
    ssl_certfile: Path | None = Field(
        None, description="Certificate in PEM, with those between it and the root: serves HTTPS. Default: HTTP."
    )
    ssl_keyfile: Path | None = Field(None, description="Private key of SSL_CERTFILE in PEM. Default: in the same file.")
    ssl_keyfile_password: SecretStr = Field(SecretStr(""), description="Password of that private key.")
    forwarded_allow_ips: str = Field(
        "127.0.0.1,::1",
        description=(
            "Addresses or networks of proxies, with commas between, whose X-Forwarded-For and X-Forwarded-Proto count; "
            "or * for all."
        ),
    )
    data_dir: Path = Field(Path("./data"), description="Where the embedded database and the artifacts live by default.")

    database_url: str | None = Field(
        None,
        repr=False,
        description="SQLAlchemy URL of PostgreSQL or SQLite. Default: SQLite in DATA_DIR.",
    )
    database_host: str | None = Field(
        None, description="PostgreSQL host, in place of DATABASE_URL, with the four settings below."
    )
    database_port: int = Field(5432, ge=1, le=65535, description="PostgreSQL port.")
    database_name: str = Field("tidemark", description="PostgreSQL database.")
    database_user: str = Field("tidemark", description="PostgreSQL user.")
    database_password: SecretStr = Field(SecretStr(""), description="PostgreSQL password.")
    database_timeout_s: int = Field(
        10, ge=1, description="Seconds until a statement, or the wait for a connection, is given up with a 503."
    )

    redis_url: str | None = Field(
        None,
        repr=False,
        description="Redis for request latencies across replicas. Default: kept in this process.",
    )
    latency_history_limit: int = Field(
        100, ge=1, le=1_000_000, description="Requests of each kind that /healthcheck looks back on."
    )

    model_state_folder: str | None = Field(
        None,
        validation_alias=AliasChoices("model_state_folder", "model_folder"),
        description="Where fitted models are stored: a path or an object-store URL. Default: DATA_DIR/models.",
    )
    training_data_folder: str | None = Field(
        None,
        validation_alias=AliasChoices("training_data_folder", "data_folder"),
        description="Where training data is stored: a path or an object-store URL. Default: DATA_DIR/training.",
    )
    model_cache_mb: int = Field(256, ge=1, description="Memory for models kept ready to predict, in MB.")

    min_training_data_points: int = Field(3, ge=2, description="Points that a fit needs at least.")
    fit_budget_s: float = Field(
        4.0, gt=0, allow_inf_nan=False, description="Seconds that `auto` may take to choose, for each series."
    )
    warm_up: Literal["on", "off"] = Field(
        "on", description="Compile and load what fits by `auto` run as the service starts, not at the first of them."
    )
    max_points: int = Field(2_000_000, ge=1, description="Points that one request may carry at most.")
    max_body_mb: int = Field(100, ge=1, description="Size of a request body at most, in MB.")
    max_bodies_mb: int = Field(
        512, ge=1, description="Bodies and large answers that a process holds in memory at once, in MB; beyond it, 503."
    )
    max_spool_mb: int = Field(
        4096, ge=0, description="Disk for answers of streams that their clients do not read yet, in MB."
    )
    max_requests: int = Field(250, ge=1, description="Requests that a process works on at once; beyond it, 503.")
    max_computations: int | None = Field(
        None, ge=1, description="Fits and detections that a process computes at once. Default: one for each processor."
    )
    max_waiting_computations: int = Field(
        100, ge=0, description="Fits and detections that wait for their turn; beyond it, 503."
    )
    max_connections: int = Field(
        4000, ge=1, description="Connections that a process keeps open; beyond it, idle ones are closed."
    )
    request_timeout_s: float = Field(
        30.0,
        gt=0,
        allow_inf_nan=False,
        description="Seconds for a request to come in, one more for each 128 KB, and for its answer to be read on.",
    )
    stream_timeout_s: float = Field(
        600.0, gt=0, allow_inf_nan=False, description="Seconds that a stream of lines or batches may send nothing."
    )
    keep_alive_s: int = Field(75, ge=0, description="Seconds that a connection may stay open without a request.")

    auth: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Whether API keys are asked for. `auto`: yes, but on loopback only once there is a key.",
    )
    api_key: SecretStr | None = Field(
        None, description="A key with every scope, for all series; others are made by `keys create`."
    )
    session_secret: SecretStr = Field(
        SecretStr(""), description="Signs the sessions of browsers, the same in every replica."
    )
    requests_per_minute: int | None = Field(
        None, ge=1, description="Requests of a key without a limit of its own. Default: no limit."
    )
    points_per_minute: int | None = Field(
        None, ge=1, description="Points of a key without a limit of its own. Default: no limit."
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe level that is logged."
    )
    log_format: Literal["console", "json"] = Field(
        "console", description="`console` for people, `json` for log collectors."
    )
    log_requests: Literal["none", "failures", "all"] = Field(
        "failures", description="Requests with a line in the log: `none`, `failures` and slow ones, or `all`."
    )

    @property
    def is_on_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return self.host.lower() in {"localhost", "::1"} or self.host.startswith("127.")

    @property
    def is_embedded(self) -> bool:
        """Whether the database is the SQLite file in `data_dir`, which `serve` migrates by itself."""
        return self.database_url is None and self.database_host is None

    @property
    def sqlalchemy_url(self) -> str:
        """The database to use, whichever way it was given."""
        if self.database_url is not None:
            return self.database_url.replace("postgres://", "postgresql://", 1)
        if self.database_host is not None:
            user = quote(self.database_user, safe="")
            password = quote(self.database_password.get_secret_value(), safe="")
            credentials = f"{user}:{password}" if password else user
            host = f"[{self.database_host}]" if ":" in self.database_host else self.database_host  # IPv6
            return f"postgresql://{credentials}@{host}:{self.database_port}/{quote(self.database_name, safe='')}"
        return f"sqlite:///{self.data_dir.resolve() / 'tidemark.db'}"

    @property
    def model_location(self) -> str:
        """Path or URL of the store for model states."""
        return self.model_state_folder or str(self.data_dir / "models")

    @property
    def training_location(self) -> str:
        """Path or URL of the store for training data."""
        return self.training_data_folder or str(self.data_dir / "training")


def read_settings() -> Settings:
    """Settings from the environment and `.env`.

    Raises ConfigurationError that names each setting at fault.
    """
    try:
        return Settings()
    except ValidationError as error:
        faults = "; ".join(
            f"{'_'.join(str(part) for part in fault['loc']).upper()}: {fault['msg']} (it is {fault['input']!r})"
            for fault in error.errors(include_url=False)
        )
        message = f"{faults}. See .env.example for all settings."
        raise ConfigurationError(message) from None


_METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


def share_metrics(folder: Path) -> None:
    """Have the processes that are started from now on count together, in files of this folder."""
    os.environ[_METRICS_FOLDER] = str(folder)


def metrics_folder() -> Path | None:
    """Where the processes of this service count together; None when there is but one. As prometheus_client reads it."""
    folder = os.environ.get(_METRICS_FOLDER)
    return Path(folder) if folder else None
