-- State at a moment, and the events of a chain, without reading the whole log.

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

-- Meta is the protobuf message EventMeta: length-delimited fields with numbers below 16; the fourth is wanted.
CREATE FUNCTION correlation_of(meta bytea) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog AS $$
DECLARE
    place integer := 0;
    tag integer;
    size integer;
    shift integer;
    octet integer;
BEGIN
    WHILE place < length(meta) LOOP
        tag := get_byte(meta, place);
        IF tag & 7 <> 2 OR tag >= 128 THEN
            RETURN NULL;
        END IF;
        size := 0;
        shift := 0;
        LOOP
            place := place + 1;
            IF place >= length(meta) OR shift > 21 THEN
                RETURN NULL;
            END IF;
            octet := get_byte(meta, place);
            size := size | ((octet & 127) << shift);
            shift := shift + 7;
            EXIT WHEN octet < 128;
        END LOOP;
        IF tag >> 3 = 4 THEN
            RETURN encode(substring(meta FROM place + 2 FOR size), 'escape');
        END IF;
        place := place + 1 + size;
    END LOOP;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION correlation_of IS 'The correlation id in the meta of an event; NULL when it has none.';

CREATE INDEX events_correlation ON events (public.correlation_of(meta));
