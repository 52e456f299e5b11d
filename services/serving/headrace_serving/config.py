"""Settings of serving."""

from pydantic import Field

from headrace_kit.settings import Address, StoreSettings


class ServingSettings(StoreSettings):
    """What serving needs beside what every service with a database needs."""

    registry_address: Address = Field(  # pyright: ignore[reportIncompatibleVariableOverride] - here it must be given
        description="Where the registry answers gRPC."
    )
    http_listen: Address = Field(description="Where this service answers REST.")
    serving_in_flight: int = Field(default=512, ge=1, description="Most inferences at once; further ones are refused.")
    serving_threads: int = Field(default=2, ge=1, le=64, description="Threads for inferences that take long.")
    telemetry_queue_rows: int = Field(
        default=400_000, ge=1, description="Rows of predictions that wait for Kafka, above which more are dropped."
    )
