-- What exists of schema cdc_audit, and what role $1 (NULL: there is no such role) may do with it.
WITH schema AS (
    SELECT n.oid, n.nspowner FROM pg_namespace n WHERE n.nspname = 'cdc_audit'
), function AS (
    SELECT p.oid, p.proname, p.prosrc, p.proowner
    FROM pg_proc p
    JOIN schema ON p.pronamespace = schema.oid
    WHERE p.proname = 'set_context' AND p.pronargs = 1 AND p.proargtypes[0] = 'jsonb'::regtype
       OR p.proname IN ('clear_context', 'context_from_settings', 'rotate_context_key') AND p.pronargs = 0
)
SELECT jsonb_build_object(
    'schema', EXISTS (SELECT FROM schema),
    'may_create', coalesce((SELECT has_schema_privilege(oid, 'CREATE') FROM schema), false),
    'owned', coalesce((SELECT pg_has_role(nspowner, 'USAGE') FROM schema), false),
    'public_usage', coalesce((SELECT has_schema_privilege('public', oid, 'USAGE') FROM schema), false),
    'daemon_usage', coalesce((SELECT has_schema_privilege($1::name, oid, 'USAGE') FROM schema), false),
    'functions', (
        SELECT coalesce(jsonb_object_agg(proname, jsonb_build_object(
            'body', prosrc, 'public_execute', has_function_privilege('public', oid, 'EXECUTE')
        )), '{}')
        FROM function
    ),
    -- Who could sign a context: whoever may read the keys without being their owner or the daemon.
    'key_readers', (
        SELECT coalesce(jsonb_agg(DISTINCT CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(acl.grantee)) END), '[]')
        FROM pg_class c
        JOIN schema ON c.relnamespace = schema.oid
        CROSS JOIN aclexplode(c.relacl) acl
        WHERE c.relname = 'context_keys' AND acl.privilege_type = 'SELECT' AND acl.grantee <> c.relowner
          AND acl.grantee <> coalesce((SELECT r.oid FROM pg_roles r WHERE r.rolname = $1), 0)
    ),
    -- The functions that write messages, each with its types, and who may call them.
    'emit', (
        SELECT jsonb_build_object(
            'functions', jsonb_agg(p.oid::regprocedure::text ORDER BY p.oid),
            'public', bool_or(has_function_privilege('public', p.oid, 'EXECUTE')),
            'daemon', coalesce(bool_and(has_function_privilege($1::name, p.oid, 'EXECUTE')), false),
            -- set_context writes its messages with its owner's rights.
            'owner', (SELECT quote_ident(pg_get_userbyid(f.proowner)) FROM function f WHERE f.proname = 'set_context'),
            'owner_may', bool_and((
                SELECT coalesce(bool_and(has_function_privilege(f.proowner, p.oid, 'EXECUTE')), true)
                FROM function f WHERE f.proname = 'set_context'
            ))
        )
        FROM pg_proc p
        WHERE p.proname = 'pg_logical_emit_message' AND p.pronamespace = 'pg_catalog'::regnamespace
    ),
    'tables', (
        SELECT coalesce(jsonb_object_agg(c.relname, (
            SELECT coalesce(jsonb_agg(privilege), '[]')
            FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) privilege
            WHERE has_table_privilege($1::name, c.oid, privilege)
        )), '{}')
        FROM pg_class c
        JOIN schema ON c.relnamespace = schema.oid
        WHERE c.relkind = 'r' AND c.relname IN ('captured', 'captured_since', 'chunks', 'context_keys', 'quarantine')
    ),
    -- The hot table may lie in the same schema.
    'others', (
        SELECT count(*) FROM pg_class c JOIN schema ON c.relnamespace = schema.oid
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND c.relname NOT IN ('captured', 'captured_since', 'chunks', 'context_keys', 'quarantine')
    ) + (
        SELECT count(*) FROM pg_proc p JOIN schema ON p.pronamespace = schema.oid
        WHERE p.oid NOT IN (SELECT oid FROM function)
    )
)
