-- Traces of applications, and their spans.

CREATE TABLE traces (
    name               text PRIMARY KEY,
    project            text NOT NULL,
    experiment         text NOT NULL,
    run                text NOT NULL,
    display_name       text NOT NULL,
    state              smallint NOT NULL,
    start_time         timestamptz NOT NULL,
    duration_ns        bigint NOT NULL,
    request_preview    text NOT NULL,
    response_preview   text NOT NULL,
    client_request_id  text NOT NULL,
    metadata           jsonb NOT NULL,
    tags               jsonb NOT NULL,
    is_told            boolean NOT NULL,
    root_start_ns      bigint NOT NULL,
    span_count         bigint NOT NULL,
    dropped_span_count bigint NOT NULL,
    size_bytes         bigint NOT NULL
);
CREATE INDEX traces_by_time ON traces (project, start_time, name DESC);
CREATE INDEX traces_of_experiment ON traces (experiment, start_time, name DESC);
CREATE INDEX traces_of_run ON traces (run, start_time) WHERE run <> '';

CREATE TABLE spans (
    trace      text NOT NULL,
    span_id    text NOT NULL,
    start_ns   bigint NOT NULL,
    is_ended   boolean NOT NULL,
    name       text NOT NULL,
    kind       smallint NOT NULL,
    status     smallint NOT NULL,
    type       text NOT NULL,
    attributes jsonb NOT NULL,
    content    bytea NOT NULL,
    PRIMARY KEY (trace, span_id)
);

-- Ids of traces that were deleted: what comes of them later is not kept.
CREATE TABLE deleted_traces (
    name text PRIMARY KEY
);
