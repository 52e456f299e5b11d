-- State at a moment, without reading the whole log.

CREATE INDEX log_entries_sequenced_at ON log_entries (sequenced_at, position);

CREATE TABLE snapshots (
    stream_id text NOT NULL,
    version   bigint NOT NULL,
    aggregate text NOT NULL,
    revision  integer NOT NULL,
    state     bytea NOT NULL,
    PRIMARY KEY (stream_id, version)
);
COMMENT ON TABLE snapshots IS 'Folded states of long streams at some versions: a cache of events that may be emptied.';
