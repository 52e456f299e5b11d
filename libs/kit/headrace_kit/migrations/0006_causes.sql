-- From a cause to its effects, without reading the log.

ALTER TABLE events ADD COLUMN causation_id uuid;
COMMENT ON COLUMN events.causation_id IS
    'The cause that meta names, for its index: a copy outside the leaf. Null where there is none or it is not filled in yet.';
CREATE INDEX events_causation_id ON events (causation_id, local_id) WHERE causation_id IS NOT NULL;

CREATE TABLE causes_filled (
    position bigint NOT NULL,
    until    bigint NOT NULL
);
COMMENT ON TABLE causes_filled IS
    'Events at or below position have their causes in the column; those above until were written with them.';
INSERT INTO causes_filled SELECT 0, coalesce(max(position), 0) FROM log_entries;

-- The service's role may not change an event, except to copy its cause where there is none.
CREATE FUNCTION fill_causes(of_events bigint[], causes uuid[]) RETURNS integer
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    WITH filled AS (
        UPDATE public.events SET causation_id = n.cause
        FROM unnest(of_events, causes) AS n (local_id, cause)
        WHERE events.local_id = n.local_id AND events.causation_id IS NULL RETURNING 1
    )
    SELECT count(*)::integer FROM filled
$$;
