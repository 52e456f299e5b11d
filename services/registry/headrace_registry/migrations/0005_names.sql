-- Names of models for people: one that is in use stands for one model of its project.

-- NULL is what an older release writes beside this one; the read model is built anew when the code is.
ALTER TABLE models ADD COLUMN display_name text, ADD COLUMN names jsonb NOT NULL DEFAULT '[]',
    ADD COLUMN open_aliases boolean NOT NULL DEFAULT false;
UPDATE models SET display_name = split_part(name, '/', 4), names = jsonb_build_array(split_part(name, '/', 4));
CREATE UNIQUE INDEX models_display_name ON models (project, display_name) WHERE NOT deleted;
ALTER TABLE webhook_deliveries ADD COLUMN model_name text NOT NULL DEFAULT '';
COMMENT ON COLUMN webhook_deliveries.model_name IS 'What people called the model when the delivery was noted.';
