"""Settings of the monitor."""

from pydantic import Field

from headrace_kit.settings import StoreSettings


class MonitorSettings(StoreSettings):
    """The monitor's own settings, beside those of every service with a database."""

    idle_s: float = Field(
        default=3.0, gt=0, le=3600, description="A shard without news for this long does not hold up the others."
    )
    decide_every_s: float = Field(default=0.2, gt=0, le=60, description="Time between looks for slots to close.")
    seal_every_s: float = Field(
        default=3600.0, gt=0, le=86_400, description="Time between seals of the windows closed since, in the log."
    )
    archive_after_s: float = Field(
        default=3600.0,
        gt=0,
        le=86_400 * 7,
        description="A range of telemetry is archived when its first record is this old.",
    )
    archive_range_bytes: int = Field(
        default=32 * 1024 * 1024,
        ge=1024,
        le=1024**3,
        description="Most bytes of records in an archived range; the record that goes over it is the last.",
    )
    archive_every_s: float = Field(
        default=10.0, gt=0, le=3600, description="Time between looks for telemetry to archive, and to drop from Kafka."
    )
    telemetry_keep_days: float = Field(
        default=7.0, ge=0, le=3650, description="How long telemetry stays in Kafka once it is archived and counted."
    )
    stream_instance: str = Field(default="monitor-0", min_length=1, description="Name of this stream worker.")


class StreamSettings(MonitorSettings):
    """Settings of the process that counts; its parent hands on its own environment."""

    label_wait_days: float = Field(
        default=30.0,
        gt=0,
        le=3650,
        description="How long a prediction waits for its label, and a label for its prediction, before it is given up.",
    )
