-- What runs wrote to their standard streams: the beginning and the end of it, in order.

CREATE TABLE run_output (
    run            text NOT NULL,
    time_us        bigint NOT NULL,
    stream         smallint NOT NULL,
    left_out_bytes bigint NOT NULL,
    is_beginning   boolean NOT NULL,
    content        bytea NOT NULL,
    PRIMARY KEY (run, time_us)
);

-- How much of it is kept.
CREATE TABLE run_output_sizes (
    run        text PRIMARY KEY,
    size_bytes bigint NOT NULL
);
