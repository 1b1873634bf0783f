-- What exists of schema cdc_audit, and what role $1 (NULL: there is no such role) may do with it. Role $2 (NULL: none) owns the tables of
-- hot sinks, which may have made the schema.
WITH schema AS (
    SELECT n.oid, n.nspowner FROM pg_namespace n WHERE n.nspname = 'cdc_audit'
), trusted AS (
    -- Anybody else could have made what `setup` finds, to learn the keys or to run code as the daemon. Being a member of another role
    -- is no proof: that role may have given the membership.
    SELECT r.oid FROM pg_roles r
    WHERE r.rolsuper OR r.rolname IN (current_user, $1::name, $2::name)
       OR r.oid = (SELECT d.datdba FROM pg_database d WHERE d.datname = current_database())
), function AS (
    SELECT p.oid, p.proname, p.prosrc, p.prosecdef, p.proconfig, p.proowner
    FROM pg_proc p
    JOIN schema ON p.pronamespace = schema.oid
    WHERE p.proname = 'set_context' AND p.pronargs = 1 AND p.proargtypes[0] = 'jsonb'::regtype
       OR p.proname IN ('clear_context', 'context_from_settings', 'rotate_context_key') AND p.pronargs = 0
), own AS (
    SELECT c.oid, c.relname, c.relowner, c.relacl
    FROM pg_class c
    JOIN schema ON c.relnamespace = schema.oid
    WHERE c.relkind = 'r' AND c.relname IN ('captured', 'captured_names', 'captured_since', 'chunks', 'context_keys', 'quarantine')
), key_giver AS (
    -- Who is a member of one of these may read the keys of contexts.
    SELECT own.relowner AS role, own.relowner AS owner FROM own WHERE own.relname = 'context_keys'
    UNION
    SELECT CASE acl.grantee WHEN 0 THEN NULL ELSE acl.grantee END, own.relowner
    FROM own CROSS JOIN aclexplode(own.relacl) acl
    WHERE own.relname = 'context_keys' AND acl.privilege_type = 'SELECT'
    UNION
    SELECT r.oid, own.relowner FROM own, pg_roles r
    WHERE own.relname = 'context_keys' AND (r.rolname = 'pg_read_all_data' OR r.rolname = $1)
)
SELECT jsonb_build_object(
    'schema', EXISTS (SELECT FROM schema),
    'may_create', coalesce((SELECT has_schema_privilege(oid, 'CREATE') FROM schema), false),
    'owned', coalesce((SELECT pg_has_role(nspowner, 'USAGE') FROM schema), false),
    'public_usage', coalesce((SELECT has_schema_privilege('public', oid, 'USAGE') FROM schema), false),
    'daemon_usage', coalesce((SELECT has_schema_privilege($1::name, oid, 'USAGE') FROM schema), false),
    'functions', (
        SELECT coalesce(jsonb_object_agg(proname, jsonb_build_object(
            'body', prosrc, 'definer', prosecdef, 'settings', coalesce(to_jsonb(proconfig), '[]'),
            'public_execute', has_function_privilege('public', oid, 'EXECUTE')
        )), '{}')
        FROM function
    ),
    -- Who could sign a context: whoever may read the keys, or act as a role that may, and is neither their owner nor the daemon.
    'key_readers', (
        SELECT coalesce(jsonb_agg(reader ORDER BY reader ->> 'role'), '[]')
        FROM (
            SELECT DISTINCT ON (who) jsonb_build_object('role', who, 'by', by) AS reader
            FROM (
                SELECT 'PUBLIC' AS who, NULL::text AS by FROM key_giver WHERE role IS NULL
                UNION ALL
                SELECT quote_ident(r.rolname), CASE WHEN r.oid <> giver.role THEN quote_ident(pg_get_userbyid(giver.role)) END
                FROM pg_roles r
                JOIN key_giver giver ON r.oid = giver.role OR pg_has_role(r.oid, giver.role, 'MEMBER')
                WHERE NOT r.rolsuper AND r.oid <> giver.owner AND r.rolname IS DISTINCT FROM $1
                  AND (r.rolcanlogin OR r.oid = giver.role AND r.rolname <> 'pg_read_all_data')
            ) AS found
            ORDER BY who, by NULLS FIRST
        ) AS readers
    ),
    'foreign_schema', (
        SELECT quote_ident(pg_get_userbyid(nspowner)) FROM schema WHERE nspowner NOT IN (SELECT oid FROM trusted)
    ),
    -- What is there under a name of ours and is not as `setup` makes it.
    'foreign', (
        SELECT coalesce(jsonb_agg(what ORDER BY what), '[]')
        FROM (
            SELECT format('function cdc_audit.%I, which belongs to role %I', proname, pg_get_userbyid(proowner)) AS what
            FROM function, schema WHERE proowner NOT IN (SELECT oid FROM trusted) AND proowner <> nspowner
            UNION ALL
            SELECT format('table cdc_audit.%I, which belongs to role %I', relname, pg_get_userbyid(relowner))
            FROM own, schema WHERE relowner NOT IN (SELECT oid FROM trusted) AND relowner <> nspowner
            UNION ALL
            SELECT format('trigger %I of cdc_audit.%I', t.tgname, own.relname)
            FROM own JOIN pg_trigger t ON t.tgrelid = own.oid AND NOT t.tgisinternal
            UNION ALL
            SELECT format('rule %I of cdc_audit.%I', r.rulename, own.relname) FROM own JOIN pg_rewrite r ON r.ev_class = own.oid
        ) AS found
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
        SELECT coalesce(jsonb_object_agg(own.relname, (
            SELECT coalesce(jsonb_agg(privilege), '[]')
            FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) privilege
            WHERE has_table_privilege($1::name, own.oid, privilege)
               OR privilege = 'INSERT' AND has_any_column_privilege($1::name, own.oid, privilege)
        )), '{}')
        FROM own
    ),
    -- An earlier version's table does not say who decided, and lets the daemon's role take decisions back.
    'quarantine_is_old', EXISTS (
        SELECT FROM own
        WHERE relname = 'quarantine' AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = own.oid AND a.attname = 'os_user')
    ),
    'quarantine_is_open', EXISTS (
        SELECT FROM own CROSS JOIN aclexplode(own.relacl) acl
        LEFT JOIN pg_roles r ON r.oid = acl.grantee
        WHERE relname = 'quarantine' AND acl.grantee <> own.relowner AND coalesce(r.rolname = $1, true)
          AND acl.privilege_type <> 'SELECT'
    ),
    -- The hot table may lie in the same schema.
    'others', (
        SELECT count(*) FROM pg_class c JOIN schema ON c.relnamespace = schema.oid
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND c.relname NOT IN ('captured', 'captured_names', 'captured_since', 'chunks', 'context_keys', 'quarantine')
    ) + (
        SELECT count(*) FROM pg_proc p JOIN schema ON p.pronamespace = schema.oid
        WHERE p.oid NOT IN (SELECT oid FROM function)
    )
)
