-- Read models of tracking: what searches need. The state of a run lies in `streams`.

CREATE TABLE experiments (
    name        text PRIMARY KEY,
    project     text NOT NULL,
    create_time timestamptz NOT NULL
);
CREATE INDEX experiments_project ON experiments (project, name);

CREATE TABLE runs (
    name         text PRIMARY KEY,
    project      text NOT NULL,
    experiment   text NOT NULL,
    display_name text NOT NULL,
    status       text NOT NULL,
    start_time   timestamptz NOT NULL,
    end_time     timestamptz,
    params       jsonb NOT NULL,
    tags         jsonb NOT NULL
);
CREATE INDEX runs_newest ON runs (project, start_time DESC, name);
CREATE INDEX runs_experiment ON runs (experiment, start_time DESC, name);

CREATE TABLE run_metrics (
    run  text NOT NULL,
    key  text NOT NULL,
    last double precision NOT NULL,
    min  double precision NOT NULL,
    max  double precision NOT NULL,
    PRIMARY KEY (run, key)
);
CREATE INDEX run_metrics_last ON run_metrics (key, last);

-- Evidence, verified against the digests of MetricsRecorded.
CREATE TABLE metric_points (
    run          text NOT NULL,
    group_number bigint NOT NULL,
    ordinal      integer NOT NULL,
    key          text NOT NULL,
    step         bigint NOT NULL,
    time_us      bigint NOT NULL,
    value        double precision NOT NULL,
    PRIMARY KEY (run, group_number, ordinal)
);
CREATE INDEX metric_points_series ON metric_points (run, key, step, time_us);

-- One row for each LogMetrics command: a repeat finds what was answered.
CREATE TABLE metric_commands (
    command_id   uuid PRIMARY KEY,
    request_hash bytea NOT NULL,
    run          text NOT NULL,
    count        bigint NOT NULL
);
