-- Stores under which names the tables of publication $1 are captured, and their partitions with them, and what else is known of that ($3, as
-- objects of oid, schema, table and seen). Returns what is new.
WITH RECURSIVE {published}, known AS (
    SELECT n.oid, n.schema_name, n.table_name
    FROM cdc_audit.captured_names n, pg_control_system() s
    WHERE n.source = $2 AND n.system_id = s.system_identifier::text
), kept AS (
    -- pg_upgrade keeps every oid and gives the server another identifier. That an object still has one of its names shows that it is the same.
    SELECT n.oid, n.schema_name, n.table_name
    FROM cdc_audit.captured_names n, pg_control_system() s
    WHERE n.source = $2 AND n.system_id <> s.system_identifier::text AND EXISTS (
        SELECT FROM cdc_audit.captured_names own
        JOIN pg_class c ON c.oid::bigint = own.oid
        JOIN pg_namespace m ON m.oid = c.relnamespace
        WHERE own.source = n.source AND own.system_id = n.system_id AND own.oid = n.oid
          AND own.schema_name = m.nspname::text AND own.table_name = c.relname::text
    )
), called AS (
    SELECT p.oid::bigint AS oid, n.nspname::text AS schema_name, c.relname::text AS table_name
    FROM published p
    JOIN pg_class c ON c.oid = p.oid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname <> 'cdc_audit'
    UNION
    -- What held for a table under a name before holds for its partitions too.
    SELECT k.oid, k.schema_name, k.table_name FROM known k JOIN published p ON p.oid::bigint = k.oid
), everything AS (
    SELECT oid, schema_name, table_name, $4::text::pg_lsn AS seen FROM called
    UNION ALL
    SELECT a.oid::bigint, c.schema_name, c.table_name, $4::text::pg_lsn FROM called c JOIN ancestry a ON a.ancestor::bigint = c.oid
    UNION ALL
    SELECT k.oid, k.schema_name, k.table_name, '0/0'::pg_lsn FROM kept k
    UNION ALL
    SELECT t.oid, t.schema, t."table", t.seen::pg_lsn
    FROM jsonb_to_recordset($3) AS t (oid bigint, schema text, "table" text, seen text)
), stored AS (
    INSERT INTO cdc_audit.captured_names (source, system_id, oid, schema_name, table_name, seen)
    SELECT $2, s.system_identifier::text, e.oid, e.schema_name, e.table_name, min(e.seen)
    FROM everything e, pg_control_system() s
    WHERE (e.oid, e.schema_name, e.table_name) NOT IN (SELECT k.oid, k.schema_name, k.table_name FROM known k)
    GROUP BY s.system_identifier, e.oid, e.schema_name, e.table_name
    ON CONFLICT DO NOTHING
    RETURNING oid, schema_name, table_name, seen
)
SELECT jsonb_build_object('oid', oid, 'schema', schema_name, 'table', table_name, 'seen', seen::text) FROM stored
