-- The archive of telemetry: what is in the object store, and what is about to be.

CREATE TABLE archive_plans (
    topic        text NOT NULL,
    partition    integer NOT NULL,
    first_offset bigint NOT NULL,
    last_offset  bigint NOT NULL,
    PRIMARY KEY (topic, partition)
) WITH (fillfactor = 70);
COMMENT ON TABLE archive_plans IS 'The range of a partition that is being archived, or was last: begun again after a crash, it gives the same files.';

CREATE TABLE archived_ranges (
    name         text PRIMARY KEY,
    topic        text NOT NULL,
    partition    integer NOT NULL,
    first_offset bigint NOT NULL,
    last_offset  bigint NOT NULL,
    records      bigint NOT NULL,
    rows         bigint NOT NULL,
    size_bytes   bigint NOT NULL,
    last_time    timestamptz NOT NULL,
    CONSTRAINT one_range_at_an_offset UNIQUE (topic, partition, first_offset)
);
CREATE INDEX archived_ranges_end ON archived_ranges (topic, partition, last_offset);
COMMENT ON COLUMN archived_ranges.last_time IS 'When Kafka took the last record.';
