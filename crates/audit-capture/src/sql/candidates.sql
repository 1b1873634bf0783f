-- Tables that can be captured, as role $1 (NULL: there is no such role) and the session's role stand to them. Partitions
-- go with their root; temporary and unlogged tables are not in the WAL.
WITH identity AS (
    SELECT c.oid, c.relreplident = 'f' OR EXISTS (
        SELECT FROM pg_index i
        WHERE i.indrelid = c.oid AND i.indislive AND i.indisvalid AND i.indisunique AND i.indimmediate
          AND i.indpred IS NULL
          AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END
    ) AS usable
    FROM pg_class c
    WHERE c.relkind IN ('r', 'p') AND c.oid >= 16384
)
SELECT jsonb_build_object(
    'oid', c.oid::bigint,
    'schema', n.nspname,
    'table', c.relname,
    'quoted', format('%I.%I', n.nspname, c.relname),
    'quoted_schema', quote_ident(n.nspname),
    'partitioned', c.relkind = 'p',
    'identity', ascii(c.relreplident::text),
    'usable_identity', identity.usable,
    'index_key', (
        SELECT jsonb_agg(a.attname ORDER BY k.place)
        FROM pg_index i
        CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
        WHERE i.indrelid = c.oid AND c.relreplident = 'i' AND i.indisreplident AND NOT i.indisprimary
          AND k.place <= i.indnkeyatts
    ),
    'owner', pg_get_userbyid(c.relowner),
    'owned', pg_has_role(c.relowner, 'USAGE'),
    'extension', EXISTS (
        SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
    ),
    'generated_stored', EXISTS (
        SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated = 's' AND NOT a.attisdropped
    ),
    'generated_virtual', EXISTS (
        SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated = 'v' AND NOT a.attisdropped
    ),
    'row_security', c.relrowsecurity AND NOT coalesce(
        pg_has_role($1::name, c.relowner, 'USAGE') AND NOT c.relforcerowsecurity, false
    ),
    'may_use_schema', coalesce(has_schema_privilege($1::name, n.oid, 'USAGE'), false),
    'may_select', coalesce(has_table_privilege($1::name, c.oid, 'SELECT'), false),
    'may_grant_schema', pg_has_role(n.nspowner, 'USAGE') OR has_schema_privilege(n.oid, 'USAGE WITH GRANT OPTION'),
    'may_grant_select', pg_has_role(c.relowner, 'USAGE') OR has_table_privilege(c.oid, 'SELECT WITH GRANT OPTION'),
    'rows', greatest(c.reltuples, 0)::bigint,
    'pages', greatest(c.relpages, 0) + coalesce((SELECT t.relpages FROM pg_class t WHERE t.oid = c.reltoastrelid), 0),
    -- The arguments of the trigger that setup makes; each ends with a zero byte.
    'context_trigger', (
        SELECT to_jsonb(string_to_array(encode(t.tgargs, 'escape'), '\000'))
        FROM pg_trigger t
        WHERE t.tgrelid = c.oid AND t.tgname = 'cdc_audit_context' AND NOT t.tgisinternal
    ),
    'leaves', CASE c.relkind WHEN 'p' THEN (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
            'oid', l.oid::bigint,
            'quoted', format('%I.%I', ln.nspname, l.relname),
            'identity', ascii(l.relreplident::text),
            'usable_identity', li.usable,
            'owned', pg_has_role(l.relowner, 'USAGE'),
            'rows', greatest(l.reltuples, 0)::bigint,
            'pages', greatest(l.relpages, 0) + coalesce((SELECT t.relpages FROM pg_class t WHERE t.oid = l.reltoastrelid), 0)
        ) ORDER BY ln.nspname, l.relname), '[]')
        FROM (
            WITH RECURSIVE tree AS (
                SELECT c.oid AS oid
                UNION ALL
                SELECT i.inhrelid
                FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid
                JOIN pg_class p ON p.oid = i.inhrelid AND p.relispartition
            )
            SELECT tree.oid FROM tree
        ) p
        JOIN pg_class l ON l.oid = p.oid
        JOIN pg_namespace ln ON ln.oid = l.relnamespace
        JOIN identity li ON li.oid = l.oid
        WHERE l.relkind = 'r'
    ) ELSE '[]' END
)
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN identity ON identity.oid = c.oid
WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND NOT c.relispartition
  AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'cdc_audit')
ORDER BY n.nspname, c.relname
