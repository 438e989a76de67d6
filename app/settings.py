"""Every setting of service and worker: one frozen model, built once in `main` and passed in."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 1024 * 1024
LOOPBACK = "127.0.0.1"


class Settings(BaseSettings):
    """Settings, each read from the environment as NIRVANA_<NAME>."""

    model_config = SettingsConfigDict(env_prefix="NIRVANA_", frozen=True, extra="ignore")

    home: Path = Field(
        default=Path("~/.nirvana"), description="folder of the embedded database, blobs and token"
    )
    database_url: str = Field(default="", description="SQLAlchemy URL; default: SQLite, HOME/nirvana.db")
    blob_url: str = Field(
        default="", description="obstore URL (file, s3, gs, az, memory); default: HOME/blobs"
    )
    host: str = Field(default=LOOPBACK, description="address that the service listens on")
    port: int = Field(
        default=8000, ge=0, le=65535, description="port that the service listens on; 0: any free one"
    )
    public_url: str = Field(
        default="", description="how clients reach the service; default: http://HOST:PORT"
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    signing_key: Path = Field(
        default=Path(),
        description="PEM file of the Ed25519 key that signs verdicts; default: HOME/signing-key.pem",
    )
    signup: Literal["open", "closed"] = Field(default="open", description="may anybody make an account?")
    oidc_issuer: str = Field(
        default="",
        max_length=500,
        description="OpenID provider that people may sign in by, as it names itself",
    )
    oidc_client_id: str = Field(default="", description="of this service, at that provider")
    oidc_client_secret: SecretStr = Field(
        default=SecretStr(""), description="of this service, at that provider; empty: a public client"
    )
    oidc_name: str = Field(default="", description="of that provider, on the button; default: its host")

    limits: Literal["on", "off"] = Field(
        default="on", description="count requests, and refuse what is over the rates; off: a private registry"
    )
    rates: dict[str, str] = Field(
        default_factory=dict,
        description='rates instead of the defaults: {"search": "60/minute", "publish.account": "off"}',
    )
    limit_storage: str = Field(
        default=":memory:", description="where requests are counted: :memory:, a file, or redis://..."
    )
    trusted_proxies: str = Field(
        default="",
        description="addresses or networks, comma-separated, whose X-Forwarded-For is believed",
    )
    workers: int = Field(default=1, ge=1, le=256, description="processes that answer requests")
    max_header_bytes: int = Field(default=16 * 1024, ge=1024, description="largest head of a request")
    header_seconds: float = Field(default=10, gt=0, description="longest time that a head may take")
    body_seconds: float = Field(
        default=30, gt=0, description="longest time that a body may take, other than an upload"
    )
    keep_alive_seconds: int = Field(default=5, ge=1, description="an idle connection is kept for so long")
    max_connections: int = Field(default=2000, ge=1, description="open connections of a process")
    max_connections_per_address: int = Field(
        default=200, ge=1, description="of one address, unless it is a trusted proxy's"
    )
    refusal_seconds: float = Field(
        default=1, ge=0, le=30, description="without a token, `too many` and `no room` are said so late"
    )
    max_streams: int = Field(default=500, ge=1, description="event streams that a process serves at once")
    max_streams_per_caller: int = Field(default=20, ge=1, description="of one person or address")

    max_upload_bytes: int = Field(default=64 * MIB, ge=1, description="largest ticket file that is taken")
    max_body_bytes: int = Field(default=MIB, ge=1, description="largest request body of any other kind")
    max_parameters: int = Field(default=50_000_000, ge=1, description="most parameters of an architecture")
    exports_at_once: int = Field(default=2, ge=1, description="exports that a process makes side by side")
    exports_waiting: int = Field(default=16, ge=0, description="exports that wait for their turn")
    export_memory_bytes: int = Field(
        default=2048 * MIB, ge=256 * MIB, description="most memory that making a large export takes"
    )
    export_seconds: float = Field(default=120, gt=0, description="longest time that making one takes")
    max_export_bytes: int = Field(
        default=10_240 * MIB, ge=0, description="exports kept; those unused for longest go first"
    )
    max_task_bytes: int = Field(default=256 * MIB, ge=1, description="largest file that a task is made of")
    max_task_data_bytes: int = Field(
        default=1024 * MIB, ge=1, description="largest task, its sealed rows included, as it is kept"
    )
    max_tasks_per_account: int = Field(default=100, ge=0, description="tasks that an account has at once")
    task_memory_bytes: int = Field(
        default=3072 * MIB, ge=256 * MIB, description="most memory that making a task takes"
    )
    task_seconds: float = Field(default=120, gt=0, description="longest time that making one takes")
    mirror_of: str = Field(default="", description="registry that this one mirrors; no writes then")
    check_processes: int = Field(
        default=2, ge=0, description="processes that check uploaded tickets; 0: threads of the service"
    )
    accel_prefix: str = Field(
        default="", description="nginx' internal location of the blobs: files leave by X-Accel-Redirect"
    )
    presign_seconds: int = Field(
        default=0, ge=0, le=604_800, description="life of a signed address of the store; 0: never redirect"
    )
    dump_cron: str = Field(
        default="17 3 * * *", description="when a worker makes a dump, in UTC; empty: never"
    )
    dumps_kept: int = Field(default=7, ge=1, description="dumps that are kept, the newest ones")
    webhook_private: bool = Field(default=False, description="may webhooks name private addresses?")
    upload_seconds: float = Field(default=300, gt=0, description="longest time that one upload may take")
    database_pool_size: int = Field(default=10, ge=1, description="connections kept to the database")
    database_wait_seconds: float = Field(
        default=10, gt=0, description="longest wait for a lock or a connection"
    )

    job_deadline_seconds: float = Field(default=6 * 3600, gt=0, description="longest time that a job may run")
    job_memory_bytes: int = Field(
        default=4096 * MIB, ge=MIB, description="most memory of a job's child process"
    )
    max_flops_per_job: float = Field(
        default=1e19,
        gt=0,
        allow_inf_nan=False,
        description="most floating-point operations that a job may plan, whatever its budget allows",
    )
    max_flops_per_account_per_day: float = Field(
        default=2e19,
        gt=0,
        allow_inf_nan=False,
        description="most floating-point operations that an account's jobs of 24 hours may plan together",
    )
    max_stored_bytes_per_account: int = Field(
        default=10_240 * MIB, ge=0, description="ticket files that an account publishes, together"
    )
    max_open_jobs_per_account: int = Field(
        default=20, ge=1, description="queued and running jobs of one account"
    )
    max_organisations_per_account: int = Field(
        default=10, ge=0, description="organisations that an account may make"
    )
    newcomer_days: float = Field(
        default=7,
        ge=0,
        description="an account is new for so long: until then all of one network's are one person; 0: never",
    )
    newcomer_turns: int = Field(
        default=5, ge=0, description="jobs of each other person that go before a newcomer's first one"
    )
    job_silence_seconds: float = Field(
        default=600, gt=0, description="a child without progress for so long is killed"
    )
    job_attempts: int = Field(default=3, ge=1, description="tries of one round before its job fails")
    job_retry_seconds: float = Field(
        default=2, ge=0, description="wait before the second try; doubled each time"
    )
    job_threads: int = Field(default=1, ge=1, description="compute threads of a job's child process")
    job_recoveries: int = Field(default=5, ge=1, description="workers that a job may lose before it fails")
    worker_concurrency: int = Field(default=1, ge=1, description="jobs that one worker runs at once")
    worker_poll_seconds: float = Field(default=0.5, gt=0, description="how often a worker looks for a job")
    worker_drain_seconds: float = Field(
        default=0, ge=0, description="time for rounds to end after SIGTERM; 0: hand over"
    )
    worker_heartbeat_seconds: float = Field(default=5, gt=0, description="how often a worker beats")
    worker_expiry_seconds: float = Field(default=30, gt=0, description="a worker silent for so long is dead")

    @property
    def has_oidc(self) -> bool:
        """True where people may sign in by an OpenID provider."""
        return bool(self.oidc_issuer and self.oidc_client_id) and not self.mirror_of

    @property
    def oidc_label(self) -> str:
        """How the provider is called."""
        return self.oidc_name or urlsplit(self.oidc_issuer).hostname or ""

    @property
    def proxies(self) -> list[str]:
        """The trusted proxies, one by one."""
        return [one.strip() for one in self.trusted_proxies.split(",") if one.strip()]

    @model_validator(mode="before")
    @classmethod
    def _follow_home(cls, values: dict[str, object]) -> dict[str, object]:
        """Derive the database, the blobs and the address from `home`, `host` and `port` where not set."""
        home = Path(str(values.get("home") or cls.model_fields["home"].default)).expanduser().absolute()
        host, port = values.get("host") or LOOPBACK, values.get("port") or 8000
        return values | {
            "home": home,
            "database_url": values.get("database_url") or f"sqlite:///{home / 'nirvana.db'}",
            "blob_url": values.get("blob_url") or (home / "blobs").as_uri(),
            "signing_key": Path(str(values.get("signing_key") or home / "signing-key.pem")).expanduser(),
            "public_url": str(values.get("public_url") or f"http://{host}:{port}").rstrip("/"),
        }

    @model_validator(mode="after")
    def _expiry_outlasts_heartbeat(self) -> Self:
        if self.worker_expiry_seconds < 2 * self.worker_heartbeat_seconds:
            raise ValueError("worker_expiry_seconds must be at least twice worker_heartbeat_seconds")
        return self
