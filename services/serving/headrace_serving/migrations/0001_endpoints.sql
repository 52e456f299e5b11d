-- Read model of serving: what lists and look-ups need; the state itself lies in `streams`.

CREATE TABLE endpoints (
    name    text PRIMARY KEY,
    project text NOT NULL,
    model   text NOT NULL,
    alias   text NOT NULL,
    rollout text NOT NULL
);
CREATE INDEX endpoints_project ON endpoints (project, name);
CREATE INDEX endpoints_model ON endpoints (model, alias);
CREATE INDEX endpoints_rollout ON endpoints (rollout) WHERE rollout <> '';

-- What the registry said of versions (headrace.api.registry.v1.Version): a cache, so that a restart needs no registry.
CREATE TABLE versions (
    name text PRIMARY KEY,
    data bytea NOT NULL
);
