-- Read models are rebuilt in a schema of their own and take the places of the live tables at once.

CREATE SCHEMA rebuild;
COMMENT ON SCHEMA rebuild IS 'Tables under way; whatever a rebuild that died left here may be dropped.';

CREATE TABLE read_models (
    aggregate text PRIMARY KEY,
    revision  integer NOT NULL
);
COMMENT ON TABLE read_models IS 'The revision of the code that folded each kind of stream; older code may not append to it.';

-- The service's role owns no tables, so what it may do to them is written here. It may only replace a table whose every
-- row it may delete anyway: never events, commands or the log.
CREATE FUNCTION begin_rebuild(tables text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name text;
    live regclass;
    item record;
BEGIN
    FOREACH name IN ARRAY tables LOOP
        live := format('public.%I', name)::regclass;
        IF NOT has_table_privilege(session_user, live, 'DELETE') THEN
            RAISE insufficient_privilege USING MESSAGE = format('%s may not be rebuilt', live);
        END IF;
        EXECUTE format('DROP TABLE IF EXISTS rebuild.%I', name);
        EXECUTE format(
            'CREATE TABLE rebuild.%I (LIKE %s INCLUDING ALL EXCLUDING INDEXES EXCLUDING STATISTICS)%s', name, live,
            (SELECT ' WITH (' || array_to_string(reloptions, ', ') || ')' FROM pg_class WHERE oid = live)
        );
        EXECUTE format('COMMENT ON TABLE rebuild.%I IS %L', name, obj_description(live, 'pg_class'));
        FOR item IN
            SELECT conname, pg_get_constraintdef(oid) AS definition FROM pg_constraint
            WHERE conrelid = live AND contype IN ('p', 'u', 'x')
        LOOP
            EXECUTE format('ALTER TABLE rebuild.%I ADD CONSTRAINT %I %s', name, item.conname, item.definition);
        END LOOP;
        FOR item IN
            SELECT pg_get_indexdef(indexrelid) AS definition FROM pg_index
            WHERE indrelid = live AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
        LOOP
            EXECUTE replace(item.definition, format(' ON public.%I ', name), format(' ON rebuild.%I ', name));
        END LOOP;
        FOR item IN
            SELECT privilege_type AS privilege, pg_get_userbyid(grantee) AS role
            FROM pg_class, aclexplode(relacl) WHERE oid = live AND grantee NOT IN (0, relowner)
        LOOP
            EXECUTE format('GRANT %s ON rebuild.%I TO %I', item.privilege, name, item.role);
        END LOOP;
    END LOOP;
END
$$;

CREATE FUNCTION analyze_rebuilt(name text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('ANALYZE rebuild.%I', name);
END
$$;

CREATE FUNCTION swap_rebuilt(tables text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY tables LOOP
        IF NOT has_table_privilege(session_user, format('public.%I', name)::regclass, 'DELETE') THEN
            RAISE insufficient_privilege USING MESSAGE = format('%I may not be replaced', name);
        END IF;
        EXECUTE format('DROP TABLE public.%I', name);
        EXECUTE format('ALTER TABLE rebuild.%I SET SCHEMA public', name);
    END LOOP;
END
$$;

CREATE FUNCTION drop_rebuilt() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    item record;
BEGIN
    FOR item IN SELECT tablename FROM pg_tables WHERE schemaname = 'rebuild' LOOP
        EXECUTE format('DROP TABLE rebuild.%I', item.tablename);
    END LOOP;
END
$$;
