-- What the platform knows of persons beside the opaque ids in its events: to be deleted on request. No event tells it.

CREATE TABLE persons (
    name         text PRIMARY KEY,
    display_name text NOT NULL,
    create_time  timestamptz NOT NULL
);
COMMENT ON TABLE persons IS 'Not a read model: what is deleted here can not be rebuilt.';
