-- Groups of runs, and runs that go on with the history of another.

ALTER TABLE runs
    ADD COLUMN run_group   text NOT NULL DEFAULT '',
    ADD COLUMN forked_from text NOT NULL DEFAULT '',
    ADD COLUMN fork_step   bigint NOT NULL DEFAULT 0;
CREATE INDEX runs_group ON runs (project, run_group) WHERE run_group <> '';
CREATE INDEX runs_forks ON runs (forked_from) WHERE forked_from <> '';
