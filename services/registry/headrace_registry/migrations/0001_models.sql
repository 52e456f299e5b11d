-- Read model of the registry: what lists and look-ups need; the state itself lies in `streams`.

CREATE TABLE models (
    name        text PRIMARY KEY,
    project     text NOT NULL,
    create_time timestamptz NOT NULL
);
CREATE INDEX models_project ON models (project, name);
