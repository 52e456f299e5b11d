-- Where each consumer resumes, what it has seen, and what it has put aside.

CREATE TABLE consumer_offsets (
    consumer    text NOT NULL,
    topic       text NOT NULL,
    partition   integer NOT NULL,
    next_offset bigint,
    generation  bigint NOT NULL,
    PRIMARY KEY (consumer, topic, partition)
) WITH (fillfactor = 70);
COMMENT ON COLUMN consumer_offsets.next_offset IS 'Null until the partition was begun.';
COMMENT ON COLUMN consumer_offsets.generation IS
    'Rises with each claim of the partition; who holds an older one has lost it.';

CREATE TABLE consumer_positions (
    consumer  text NOT NULL,
    source    text NOT NULL,
    partition integer NOT NULL,
    position  bigint NOT NULL,
    PRIMARY KEY (consumer, source, partition)
) WITH (fillfactor = 70);
COMMENT ON TABLE consumer_positions IS 'High-water mark: an event at or below it was taken already.';

CREATE TABLE consumer_streams (
    consumer  text NOT NULL,
    source    text NOT NULL,
    stream_id text NOT NULL,
    version   bigint NOT NULL,
    position  bigint NOT NULL,
    PRIMARY KEY (consumer, source, stream_id)
) WITH (fillfactor = 70);
COMMENT ON TABLE consumer_streams IS 'Last version seen of each stream: the next one is this plus one, or something is missing.';

CREATE TABLE parked_streams (
    consumer  text NOT NULL,
    source    text NOT NULL,
    stream_id text NOT NULL,
    parked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (consumer, source, stream_id)
);
COMMENT ON TABLE parked_streams IS 'Streams that wait for a redrive; their events go to parked_events until then.';

CREATE TABLE parked_events (
    consumer  text NOT NULL,
    source    text NOT NULL,
    stream_id text NOT NULL,
    position  bigint NOT NULL,
    version   bigint NOT NULL,
    headers   jsonb NOT NULL,
    data      bytea NOT NULL,
    cause     text NOT NULL,
    attempts  integer NOT NULL,
    parked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (consumer, source, stream_id, position)
);
COMMENT ON COLUMN parked_events.cause IS 'The error of the first attempt; empty for events that wait behind another.';
COMMENT ON TABLE parked_events IS 'The event that could not be handled and all later ones of its stream, in order.';
