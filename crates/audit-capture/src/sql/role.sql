-- The role named $1, or the session's own.
SELECT jsonb_build_object(
    'name', r.rolname,
    'quoted', quote_ident(r.rolname),
    'superuser', r.rolsuper,
    'create_role', r.rolcreaterole,
    -- Amazon RDS gives the attribute to members of a role of its own.
    'replication', r.rolsuper OR r.rolreplication OR coalesce((
        SELECT pg_has_role(r.oid, rds.oid, 'MEMBER') FROM pg_roles rds WHERE rds.rolname = 'rds_replication'
    ), false),
    'bypass_rls', r.rolsuper OR r.rolbypassrls,
    'may_connect', has_database_privilege(r.oid, current_database(), 'CONNECT'),
    'may_create', has_database_privilege(r.oid, current_database(), 'CREATE')
)
FROM pg_roles r
WHERE r.rolname = coalesce($1::name, current_user)
