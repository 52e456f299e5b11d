-- Read models are rebuilt in a schema of their own and take the places of the live tables at once.

CREATE SCHEMA rebuild;
COMMENT ON SCHEMA rebuild IS 'Tables under way; whatever a rebuild that died left here may be dropped.';
CREATE SCHEMA replaced;
COMMENT ON SCHEMA replaced IS 'The tables before the swap, to be dropped when nobody waits for it.';

CREATE TABLE read_models (
    aggregate text PRIMARY KEY,
    revision  integer NOT NULL
);
COMMENT ON TABLE read_models IS 'The revision of the code that folded each kind of stream; older code may not append.';

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
        EXECUTE format(
            'CREATE TABLE rebuild.%I (LIKE %s INCLUDING ALL EXCLUDING INDEXES EXCLUDING STATISTICS)%s', name, live,
            (SELECT ' WITH (' || array_to_string(reloptions, ', ') || ')' FROM pg_class WHERE oid = live)
        );
        EXECUTE format('ALTER TABLE rebuild.%I DROP CONSTRAINT IF EXISTS streams_revision', name);
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

-- From the swap on, a state that older code folded is refused; every row there is was checked by whoever made it.
CREATE FUNCTION swap_rebuilt(tables text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name text;
    least text;
BEGIN
    SELECT string_agg(format('WHEN %L THEN %s', aggregate, revision), ' ' ORDER BY aggregate) INTO least
    FROM public.read_models WHERE revision > 1;
    IF least IS NOT NULL AND 'streams' = ANY(tables) THEN
        EXECUTE format(
            'ALTER TABLE rebuild.streams ADD CONSTRAINT streams_revision'
            ' CHECK (revision >= CASE aggregate %s ELSE 1 END) NOT VALID', least
        );
    END IF;
    FOREACH name IN ARRAY tables LOOP
        IF NOT has_table_privilege(session_user, format('public.%I', name)::regclass, 'DELETE') THEN
            RAISE insufficient_privilege USING MESSAGE = format('%I may not be replaced', name);
        END IF;
        EXECUTE format('ALTER TABLE public.%I SET SCHEMA replaced', name);
        EXECUTE format('ALTER TABLE rebuild.%I SET SCHEMA public', name);
    END LOOP;
END
$$;

-- One table a call, and false when there was none: who had planned a statement on the tables before the swap locks them
-- once more, in an order of its own, so whoever drops them may not hold one while it waits for another.
CREATE FUNCTION drop_rebuilt() RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    item record;
BEGIN
    SELECT schemaname, tablename INTO item FROM pg_tables
    WHERE schemaname IN ('rebuild', 'replaced') ORDER BY schemaname, tablename LIMIT 1;
    IF item IS NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('DROP TABLE %I.%I', item.schemaname, item.tablename);
    RETURN true;
END
$$;
