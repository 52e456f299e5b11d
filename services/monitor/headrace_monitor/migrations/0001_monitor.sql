-- Monitors and alerts; what stage 1 counts by shard; what stage 2 froze and decided.

CREATE TABLE monitors (
    name            text PRIMARY KEY,
    project         text NOT NULL,
    endpoint        text NOT NULL,
    config_revision bigint NOT NULL,
    paused          boolean NOT NULL,
    create_time     timestamptz NOT NULL,
    CONSTRAINT one_monitor_an_endpoint UNIQUE (project, endpoint)
);

CREATE TABLE alerts (
    name      text PRIMARY KEY,
    project   text NOT NULL,
    monitor   text NOT NULL,
    raised_at timestamptz NOT NULL,
    alert     bytea NOT NULL
);
CREATE INDEX alerts_newest ON alerts (project, raised_at DESC, name DESC);

-- What the registry told.
CREATE TABLE versions (
    name              text PRIMARY KEY,
    model             text NOT NULL,
    reference_profile bytea
);
COMMENT ON COLUMN versions.reference_profile IS 'ObjectRef of the profile; null when the version has none.';

CREATE TABLE aliases (
    model            text NOT NULL,
    alias            text NOT NULL,
    version          text NOT NULL,
    previous_version text NOT NULL,
    revision         bigint NOT NULL,
    PRIMARY KEY (model, alias)
);

-- Short ids of long names.
CREATE TABLE watched_endpoints (
    id       integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project  text NOT NULL,
    endpoint text NOT NULL,
    UNIQUE (project, endpoint)
);
CREATE TABLE watched_versions (
    id   integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE
);

CREATE TABLE layouts (
    endpoint_id integer NOT NULL,
    version_id  integer NOT NULL,
    profile     bytea NOT NULL,
    PRIMARY KEY (endpoint_id, version_id)
);
COMMENT ON TABLE layouts IS 'The reference profile by whose bins a version is counted on an endpoint: fixed at its first prediction.';

-- Stage 1. One transaction moves offsets, numbers, slots, counts and the join.
CREATE TABLE producers (
    kind        smallint NOT NULL,
    shard       smallint NOT NULL,
    producer_id text NOT NULL,
    epoch       bigint NOT NULL,
    last_seq    bigint NOT NULL,
    updated_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (kind, shard, producer_id, epoch)
) WITH (fillfactor = 70);

CREATE TABLE slots (
    endpoint_id  integer NOT NULL,
    start_us     bigint NOT NULL,
    version_id   integer NOT NULL,
    shard        smallint NOT NULL,
    rows         bigint NOT NULL,
    labels       bigint NOT NULL,
    correct      bigint NOT NULL,
    error_sum    numeric NOT NULL,
    error_square numeric NOT NULL,
    cells        bytea NOT NULL,
    PRIMARY KEY (endpoint_id, start_us, version_id, shard)
) WITH (fillfactor = 70);
COMMENT ON COLUMN slots.error_sum IS 'In units of 2^-20.';
COMMENT ON COLUMN slots.error_square IS 'Of errors rounded to 1/64 and capped, in units of 2^-12.';

CREATE TABLE endpoint_counts (
    endpoint_id       integer NOT NULL,
    shard             smallint NOT NULL,
    predictions       bigint NOT NULL DEFAULT 0,
    labels_joined     bigint NOT NULL DEFAULT 0,
    labels_waiting    bigint NOT NULL DEFAULT 0,
    labels_repeated   bigint NOT NULL DEFAULT 0,
    labels_refused    bigint NOT NULL DEFAULT 0,
    labels_unwatched  bigint NOT NULL DEFAULT 0,
    batches_repeated  bigint NOT NULL DEFAULT 0,
    batches_lost      bigint NOT NULL DEFAULT 0,
    batches_forwarded bigint NOT NULL DEFAULT 0,
    quarantined       bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (endpoint_id, shard)
) WITH (fillfactor = 70);

CREATE TABLE waiting_predictions (
    endpoint_id integer NOT NULL,
    key         bytea NOT NULL,
    version_id  integer NOT NULL,
    start_us    bigint NOT NULL,
    predicted   bytea NOT NULL,
    labelled    bytea,
    counted_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (endpoint_id, key)
) WITH (fillfactor = 85);
COMMENT ON COLUMN waiting_predictions.key IS 'The 16 bytes of a UUID, or the first 16 of the SHA-256 of any other id.';
COMMENT ON COLUMN waiting_predictions.predicted IS 'One float64 a row, little-endian.';
COMMENT ON COLUMN waiting_predictions.labelled IS 'One bit a row that got its label; null while none did.';

CREATE TABLE waiting_labels (
    endpoint_id integer NOT NULL,
    key         bytea NOT NULL,
    row_number  integer NOT NULL,
    shard       smallint NOT NULL,
    value       double precision NOT NULL,
    counted_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (endpoint_id, key, row_number)
);
CREATE INDEX waiting_labels_shard ON waiting_labels (shard);

CREATE TABLE shard_progress (
    endpoint_id integer NOT NULL,
    kind        smallint NOT NULL,
    shard       smallint NOT NULL,
    max_time_us bigint NOT NULL,
    updated_at  timestamptz NOT NULL,
    PRIMARY KEY (endpoint_id, kind, shard)
) WITH (fillfactor = 70);

CREATE TABLE partition_progress (
    topic        text NOT NULL,
    partition    integer NOT NULL,
    caught_up_at timestamptz NOT NULL,
    PRIMARY KEY (topic, partition)
) WITH (fillfactor = 70);
COMMENT ON COLUMN partition_progress.caught_up_at IS 'When nothing was left to read in the partition.';

-- Stage 2.
CREATE TABLE windows (
    endpoint_id  integer NOT NULL,
    start_us     bigint NOT NULL,
    version_id   integer NOT NULL,
    rows         bigint NOT NULL,
    labels       bigint NOT NULL,
    correct      bigint NOT NULL,
    error_sum    numeric NOT NULL,
    error_square numeric NOT NULL,
    cells        bytea NOT NULL,
    closed_with  jsonb NOT NULL,
    PRIMARY KEY (endpoint_id, start_us, version_id)
);
COMMENT ON TABLE windows IS 'Closed slots, merged over shards: frozen, the only thing decisions read.';

CREATE TABLE monitor_progress (
    endpoint_id     integer PRIMARY KEY,
    closed_until_us bigint NOT NULL,
    decided_until_us bigint NOT NULL
) WITH (fillfactor = 70);
COMMENT ON COLUMN monitor_progress.closed_until_us IS 'Slots that start before it are closed, and closed for good.';
COMMENT ON COLUMN monitor_progress.decided_until_us IS 'Slots that start before it are decided.';
