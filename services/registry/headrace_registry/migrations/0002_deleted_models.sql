ALTER TABLE models ADD COLUMN deleted boolean NOT NULL DEFAULT false;
