SELECT a.usename::text
FROM pg_stat_activity AS a
WHERE a.usename <> session_user
    AND EXISTS (
        SELECT FROM pg_roles AS r
        WHERE r.rolname = ANY ($2::text[]) AND pg_has_role(a.usesysid, r.oid, 'MEMBER'))
    AND cardinality($1::bigint[]) = (
        SELECT count(*) FROM pg_locks AS l
        WHERE l.pid = a.pid AND l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
            AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
            AND (l.classid::bigint << 32 | l.objid::bigint) = ANY ($1))
LIMIT 1
