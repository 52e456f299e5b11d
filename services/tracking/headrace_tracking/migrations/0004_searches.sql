-- What searches need: the parent and the code of a run, a run without its packages, an index of the last values.
-- The first process of this code fills what is new from the log, before it is ready.

ALTER TABLE runs
    ADD COLUMN parent_run  text NOT NULL DEFAULT '',
    ADD COLUMN code_commit text NOT NULL DEFAULT '',
    ADD COLUMN code_dirty  boolean NOT NULL DEFAULT false;

CREATE TABLE run_views (
    name  text PRIMARY KEY,
    shown bytea NOT NULL
);

-- As searches write it: without NaN, so that sorting by it can read the index.
DROP INDEX run_metrics_last;
CREATE INDEX run_metrics_value ON run_metrics (key, (nullif(last, 'NaN'::float8)));

-- Parameters and tags of a value.
CREATE INDEX runs_params ON runs USING gin (params jsonb_path_ops);
CREATE INDEX runs_tags ON runs USING gin (tags jsonb_path_ops);
