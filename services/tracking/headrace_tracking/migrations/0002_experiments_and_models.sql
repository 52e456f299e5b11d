-- Experiments with names for people and numbers, what was put away, datasets of runs, logged models.

ALTER TABLE experiments ADD COLUMN display_name text, ADD COLUMN number bigint, ADD COLUMN delete_time timestamptz;
-- As number_of() of experiments.py makes it: the first eight bytes of the SHA-256, unsigned.
UPDATE experiments SET
    display_name = split_part(name, '/', 4),
    number = CASE WHEN split_part(name, '/', 4) = 'Default' THEN 0 ELSE (
        1e17 + mod(
            ('x' || substr(encode(sha256(convert_to(name, 'UTF8')), 'hex'), 1, 8))::bit(32)::bigint::numeric * 4294967296
            + ('x' || substr(encode(sha256(convert_to(name, 'UTF8')), 'hex'), 9, 8))::bit(32)::bigint::numeric,
            9e17
        )
    )::bigint END;
ALTER TABLE experiments ALTER COLUMN display_name SET NOT NULL, ALTER COLUMN number SET NOT NULL;
CREATE UNIQUE INDEX experiments_display_name ON experiments (project, display_name);
CREATE UNIQUE INDEX experiments_number ON experiments (project, number);

ALTER TABLE runs ADD COLUMN delete_time timestamptz, ADD COLUMN datasets jsonb NOT NULL DEFAULT '[]';

CREATE TABLE logged_models (
    name        text PRIMARY KEY,
    project     text NOT NULL,
    experiment  text NOT NULL,
    run         text NOT NULL,
    create_time timestamptz NOT NULL,
    delete_time timestamptz
);
CREATE INDEX logged_models_newest ON logged_models (project, create_time DESC, name);
CREATE INDEX logged_models_run ON logged_models (run);
