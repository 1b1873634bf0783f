-- What happened, as triggers on the same tables saw it in the same transactions. Nothing of the program is used here.
CREATE SCHEMA truth;
CREATE EXTENSION hstore SCHEMA truth;

-- Values are PostgreSQL's own texts by the number of their column, because names change.
CREATE TABLE truth.log (
    n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid bigint NOT NULL DEFAULT (pg_current_xact_id()::text::bigint % 4294967296),
    begun timestamptz NOT NULL DEFAULT now(),
    tab text NOT NULL,
    event text NOT NULL,
    -- The row, whatever its key is: NULL for TRUNCATE.
    row_id bigint,
    key text,
    old_key text,
    old jsonb,
    new jsonb,
    names jsonb NOT NULL,
    types jsonb NOT NULL,
    actor text NOT NULL DEFAULT coalesce(current_setting('truth.actor', true), ''),
    reason text NOT NULL DEFAULT coalesce(current_setting('truth.reason', true), ''),
    request text NOT NULL DEFAULT coalesce(current_setting('truth.request', true), ''));
CREATE TABLE truth.living (tab text, key text, row_id bigint PRIMARY KEY);
CREATE SEQUENCE truth.rows;
-- The rows that a TRUNCATE ended, by the number of its line in the log.
CREATE TABLE truth.ended (row_id bigint PRIMARY KEY, n bigint NOT NULL);

CREATE FUNCTION truth.numbered(rel oid, r truth.hstore) RETURNS jsonb LANGUAGE sql STABLE SET search_path TO truth, pg_catalog AS $$
    SELECT jsonb_object_agg(attnum, r -> attname::text) FROM pg_attribute
    WHERE attrelid = rel AND attnum > 0 AND NOT attisdropped $$;

-- The key as the record writes it: the text of one column, or a JSON array of several.
CREATE FUNCTION truth.key(r jsonb, columns text[]) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN cardinality(columns) = 1 THEN r ->> columns[array_lower(columns, 1)]
        ELSE '[' || (SELECT string_agg((r -> c)::text, ',' ORDER BY at) FROM unnest(columns) WITH ORDINALITY AS k (c, at)) || ']' END $$;

CREATE FUNCTION truth.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path TO truth, pg_catalog
    SET datestyle TO iso SET timezone TO utc AS $$
DECLARE
    root oid := coalesce(pg_partition_root(TG_RELID), TG_RELID);
    name text := (SELECT nspname || '.' || relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE c.oid = root);
    names jsonb;
    types jsonb;
    new_key text;
    last_key text;
    row bigint;
    line bigint;
BEGIN
    SELECT jsonb_object_agg(attnum, attname), jsonb_object_agg(attnum, format_type(atttypid, atttypmod)) INTO names, types
    FROM pg_attribute WHERE attrelid = root AND attnum > 0 AND NOT attisdropped;
    IF TG_OP = 'TRUNCATE' THEN
        INSERT INTO log (tab, event, names, types) VALUES (name, 'truncated', names, types) RETURNING n INTO line;
        INSERT INTO ended SELECT l.row_id, line FROM living l WHERE l.tab = name;
        DELETE FROM living l WHERE l.tab = name;
        RETURN NULL;
    END IF;
    IF TG_OP <> 'DELETE' THEN new_key := key(to_jsonb(NEW), TG_ARGV); END IF;
    IF TG_OP <> 'INSERT' THEN last_key := key(to_jsonb(OLD), TG_ARGV); END IF;
    IF TG_OP = 'INSERT' THEN
        row := nextval('rows');
        INSERT INTO living VALUES (name, new_key, row);
    ELSIF TG_OP = 'UPDATE' THEN
        UPDATE living l SET key = new_key WHERE l.tab = name AND l.key = last_key RETURNING l.row_id INTO STRICT row;
    ELSE
        DELETE FROM living l WHERE l.tab = name AND l.key = last_key RETURNING l.row_id INTO STRICT row;
    END IF;
    INSERT INTO log (tab, event, row_id, key, old_key, old, new, names, types) VALUES (
        name, CASE TG_OP WHEN 'INSERT' THEN 'created' WHEN 'UPDATE' THEN 'updated' ELSE 'deleted' END, row,
        coalesce(new_key, last_key), CASE WHEN TG_OP = 'UPDATE' AND new_key <> last_key THEN last_key END,
        CASE WHEN TG_OP <> 'INSERT' THEN numbered(TG_RELID, hstore(OLD)) END,
        CASE WHEN TG_OP <> 'DELETE' THEN numbered(TG_RELID, hstore(NEW)) END, names, types);
    RETURN NULL;
END $$;

-- Has a table noted from now on.
CREATE FUNCTION truth.watch(tab regclass, VARIADIC columns text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE arguments text := (SELECT string_agg(quote_literal(c), ', ') FROM unnest(columns) c);
BEGIN
    EXECUTE format('CREATE TRIGGER truth AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION truth.note(%s)', tab, arguments);
    EXECUTE format('CREATE TRIGGER truth_all AFTER TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION truth.note(%s)', tab, arguments);
END $$;

-- The name that a column has, or had last, in the newest line of its table; another column may have taken it.
CREATE VIEW truth.shown AS
    WITH last AS (SELECT DISTINCT ON (tab) tab, names FROM truth.log ORDER BY tab, n DESC),
    named AS (SELECT DISTINCT ON (tab, number) tab, number, name
        FROM truth.log, jsonb_each_text(names) AS each (number, name) ORDER BY tab, number, n DESC)
    SELECT tab, number, CASE WHEN NOT last.names ? number AND EXISTS (
            SELECT FROM jsonb_each_text(last.names) AS now (number, name) WHERE now.name = named.name)
        THEN name || ' (dropped)' ELSE name END AS name
    FROM named JOIN last USING (tab);

CREATE FUNCTION truth.shown(of text, r jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_object_agg(s.name, value) FROM jsonb_each(r) AS each (number, value)
    JOIN truth.shown s ON s.tab = of AND s.number = each.number $$;

-- ⚠ In a table with partitions, a row that is deleted and made again at once looks like one that was moved.
CREATE FUNCTION truth.move(of text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE pair record;
BEGIN
    FOR pair IN SELECT * FROM (
        SELECT n, row_id, event, key, lag(n) OVER w AS last_n, lag(row_id) OVER w AS last_row, lag(event) OVER w AS last_event,
            lag(key) OVER w AS last_key, lag(tab) OVER w AS last_tab, lag(old) OVER w AS last_old, tab
        FROM truth.log WINDOW w AS (PARTITION BY xid ORDER BY n)) l
        WHERE tab = of AND last_tab = of AND event = 'created' AND last_event = 'deleted' AND key = last_key ORDER BY n
    LOOP
        UPDATE truth.log SET event = 'updated', old = pair.last_old WHERE n = pair.n;
        DELETE FROM truth.log WHERE n = pair.last_n;
        -- The deletion may itself be of a row that was moved.
        UPDATE truth.log SET row_id = (SELECT row_id FROM truth.log WHERE tab = of AND key = pair.key AND n < pair.n ORDER BY n DESC LIMIT 1)
        WHERE row_id = pair.row_id;
        UPDATE truth.ended SET row_id = (SELECT row_id FROM truth.log WHERE n = pair.n) WHERE row_id = pair.row_id;
    END LOOP;
END $$;

-- Every version, as the questions are asked of it. Rows and their versions are numbered from 1.
CREATE TABLE truth.versions (
    n bigint PRIMARY KEY, xid bigint, begun timestamptz, tab text, event text, row_id bigint, number bigint, key text, old_key text,
    old jsonb, new jsonb, changed text[], actor text, reason text, request text, names jsonb, types jsonb);
-- The same, but what looks like a move is told as a deletion and an insertion.
CREATE TABLE truth.records (LIKE truth.versions INCLUDING ALL);
CREATE FUNCTION truth.tell() RETURNS bigint LANGUAGE sql AS $$
    TRUNCATE truth.versions;
    INSERT INTO truth.versions
    SELECT n, xid, begun, tab, event, row_id, CASE WHEN row_id IS NOT NULL THEN row_number() OVER (PARTITION BY tab, row_id ORDER BY n) END,
        key, old_key, truth.shown(tab, old), truth.shown(tab, new),
        (SELECT array_agg(c ORDER BY c) FROM (SELECT jsonb_object_keys(coalesce(truth.shown(tab, old), truth.shown(tab, new))) AS c) k
            WHERE event <> 'updated' OR truth.shown(tab, old) -> c IS DISTINCT FROM truth.shown(tab, new) -> c),
        nullif(actor, ''), nullif(reason, ''), nullif(request, ''), truth.shown(tab, names), truth.shown(tab, types)
    FROM truth.log;
    SELECT count(*) FROM truth.versions $$;
