-- The event store of one service: commands, events, streams, and the log the sequencer makes of them.

CREATE TABLE commands (
    command_id    uuid PRIMARY KEY,
    request_hash  bytea NOT NULL,
    stream_id     text NOT NULL,
    recorded_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    response_type text NOT NULL,
    response      bytea
);
COMMENT ON TABLE commands IS 'Every command that wrote events; ids are kept for ever, responses for 30 days.';
CREATE INDEX commands_recorded_at ON commands USING brin (recorded_at);

CREATE TABLE events (
    local_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream_id   text NOT NULL,
    version     bigint NOT NULL CHECK (version > 0),
    event_id    uuid NOT NULL UNIQUE,
    type        text NOT NULL,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    hlc         bigint NOT NULL,
    meta        bytea NOT NULL,
    data        bytea NOT NULL,
    xid         xid8 NOT NULL DEFAULT pg_current_xact_id(),
    UNIQUE (stream_id, version)
);
COMMENT ON COLUMN events.local_id IS 'Order of insertion, with holes: not a position.';
COMMENT ON COLUMN events.xid IS 'Writing transaction; the sequencer takes rows whose xid lies below the snapshot''s xmin.';
CREATE INDEX events_xid ON events (xid);

CREATE TABLE streams (
    stream_id text PRIMARY KEY,
    aggregate text NOT NULL,
    version   bigint NOT NULL,
    hlc       bigint NOT NULL,
    revision  integer NOT NULL,
    state     bytea NOT NULL
) WITH (fillfactor = 70);
COMMENT ON TABLE streams IS 'The folded state of each stream: a cache of its events.';

CREATE TABLE log_entries (
    position     bigint PRIMARY KEY,
    local_id     bigint NOT NULL UNIQUE,
    sequenced_at timestamptz NOT NULL,
    leaf         bytea NOT NULL CHECK (length(leaf) = 32)
);
COMMENT ON TABLE log_entries IS 'The log: dense positions in the order of commitment.';

CREATE TABLE leases (
    name       text PRIMARY KEY,
    epoch      bigint NOT NULL,
    holder     text NOT NULL,
    expires_at timestamptz NOT NULL
);
COMMENT ON COLUMN leases.epoch IS 'Fencing token: rises with each new holder and never falls.';

CREATE TABLE sequencer_state (
    name         text PRIMARY KEY,
    position     bigint NOT NULL,
    sequenced_at timestamptz NOT NULL,
    window_low   xid8 NOT NULL,
    window_high  xid8 NOT NULL,
    local_id     bigint NOT NULL
);
COMMENT ON TABLE sequencer_state IS
    'Rows with xid in [window_low, window_high) and an id above local_id are the next to take their positions.';
INSERT INTO sequencer_state VALUES ('log', 0, '1970-01-01 00:00:00+00', '0', '0', 0);

CREATE TABLE relay_state (
    name     text PRIMARY KEY,
    position bigint NOT NULL
);
COMMENT ON TABLE relay_state IS 'Last position known to be published.';
INSERT INTO relay_state VALUES ('kafka', 0);

-- The service's role may not change what was answered, except to forget old answers.
CREATE FUNCTION forget_responses(older_than interval, at_most integer) RETURNS integer
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    WITH old AS (
        SELECT command_id FROM public.commands
        WHERE recorded_at < clock_timestamp() - greatest(older_than, interval '30 days') AND response IS NOT NULL
        ORDER BY recorded_at LIMIT at_most
    ), forgotten AS (
        UPDATE public.commands SET response = NULL FROM old
        WHERE commands.command_id = old.command_id RETURNING 1
    )
    SELECT count(*)::integer FROM forgotten
$$;
