-- Which bytes runs and logged models refer to, and which were let go by runs that were purged.

CREATE TABLE run_objects (
    run        text NOT NULL,
    uri        text NOT NULL,
    sha256     text NOT NULL,
    size_bytes bigint NOT NULL,
    PRIMARY KEY (run, uri)
);
CREATE INDEX run_objects_uri ON run_objects (uri);

CREATE TABLE logged_model_objects (
    model text NOT NULL,
    uri   text NOT NULL,
    PRIMARY KEY (model, uri)
);
CREATE INDEX logged_model_objects_uri ON logged_model_objects (uri);

CREATE INDEX runs_put_away ON runs (project, delete_time) WHERE delete_time IS NOT NULL;

-- Bytes of purged runs, until they are freed or found to be needed.
CREATE TABLE released_objects (
    uri        text PRIMARY KEY,
    project    text NOT NULL,
    sha256     text NOT NULL,
    size_bytes bigint NOT NULL
);
CREATE INDEX released_objects_project ON released_objects (project, uri);

-- Digests that the logs of other services name, and up to where these were read.
CREATE TABLE claimed_digests (
    sha256 text PRIMARY KEY
);
CREATE TABLE claims_read (
    source   text PRIMARY KEY,
    position bigint NOT NULL
);
