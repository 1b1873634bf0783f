-- What exists of schema cdc_audit, and what role $1 (NULL: there is no such role) may do with it.
WITH schema AS (
    SELECT n.oid, n.nspowner FROM pg_namespace n WHERE n.nspname = 'cdc_audit'
), function AS (
    SELECT p.oid, p.prosrc
    FROM pg_proc p
    JOIN schema ON p.pronamespace = schema.oid
    WHERE p.proname = 'set_context' AND p.pronargs = 1 AND p.proargtypes[0] = 'jsonb'::regtype
)
SELECT jsonb_build_object(
    'schema', EXISTS (SELECT FROM schema),
    'may_create', coalesce((SELECT has_schema_privilege(oid, 'CREATE') FROM schema), false),
    'owned', coalesce((SELECT pg_has_role(nspowner, 'USAGE') FROM schema), false),
    'public_usage', coalesce((SELECT has_schema_privilege('public', oid, 'USAGE') FROM schema), false),
    'daemon_usage', coalesce((SELECT has_schema_privilege($1::name, oid, 'USAGE') FROM schema), false),
    'set_context', (SELECT prosrc FROM function),
    'public_execute', coalesce((SELECT has_function_privilege('public', oid, 'EXECUTE') FROM function), false),
    'tables', (
        SELECT coalesce(jsonb_object_agg(c.relname, (
            SELECT coalesce(jsonb_agg(privilege), '[]')
            FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) privilege
            WHERE has_table_privilege($1::name, c.oid, privilege)
        )), '{}')
        FROM pg_class c
        JOIN schema ON c.relnamespace = schema.oid
        WHERE c.relkind = 'r' AND c.relname IN ('chunks', 'quarantine')
    ),
    -- The hot table may lie in the same schema.
    'others', (
        SELECT count(*) FROM pg_class c JOIN schema ON c.relnamespace = schema.oid
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND c.relname NOT IN ('chunks', 'quarantine')
    ) + (
        SELECT count(*) FROM pg_proc p JOIN schema ON p.pronamespace = schema.oid
        WHERE p.oid NOT IN (SELECT oid FROM function)
    )
)
