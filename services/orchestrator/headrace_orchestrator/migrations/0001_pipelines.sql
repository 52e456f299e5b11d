-- Read model of the orchestrator: what lists and recovery need; the states themselves lie in `streams`.

CREATE TABLE pipelines (
    name    text PRIMARY KEY,
    project text NOT NULL
);
CREATE INDEX pipelines_project ON pipelines (project, name);

CREATE TABLE pipeline_runs (
    name        text PRIMARY KEY,
    project     text NOT NULL,
    pipeline    text NOT NULL,
    open        boolean NOT NULL,
    create_time timestamptz NOT NULL
);
CREATE INDEX pipeline_runs_project ON pipeline_runs (project, create_time DESC, name DESC);
CREATE INDEX pipeline_runs_pipeline ON pipeline_runs (pipeline, create_time DESC, name DESC);
CREATE INDEX pipeline_runs_open ON pipeline_runs (create_time, name) WHERE open;
