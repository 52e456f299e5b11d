-- Webhooks: what lists of them and deliveries need. Their state lies in `streams`.

CREATE TABLE webhooks (
    name        text PRIMARY KEY,
    project     text NOT NULL,
    create_time timestamptz NOT NULL,
    active      boolean NOT NULL,
    deleted     boolean NOT NULL
);
CREATE INDEX webhooks_project ON webhooks (project, name);

CREATE TABLE webhook_targets (
    name            text PRIMARY KEY,
    url             text NOT NULL,
    secret          text NOT NULL,
    previous_secret text NOT NULL DEFAULT '',
    previous_until  timestamptz
);
COMMENT ON TABLE webhook_targets IS 'Not a read model: no event tells it, so what is deleted here is gone.';

CREATE TABLE webhook_deliveries (
    id              uuid PRIMARY KEY,
    project         text NOT NULL,
    webhook         text NOT NULL,
    event_id        uuid NOT NULL,
    position        bigint NOT NULL,
    part            integer NOT NULL,
    event_type      text NOT NULL,
    state           smallint NOT NULL,
    attempts        integer NOT NULL DEFAULT 0,
    next_at         timestamptz NOT NULL,
    response_status integer NOT NULL DEFAULT 0,
    error           text NOT NULL DEFAULT '',
    created_at      timestamptz NOT NULL,
    done_at         timestamptz
);
COMMENT ON COLUMN webhook_deliveries.next_at IS 'When it is due; while an attempt runs, when that is taken for lost.';
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (webhook, next_at, position, part) WHERE state = 1;
CREATE INDEX webhook_deliveries_listed ON webhook_deliveries (project, position DESC, id DESC);
CREATE INDEX webhook_deliveries_done ON webhook_deliveries (done_at) WHERE state <> 1;
