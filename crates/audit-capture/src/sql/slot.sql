-- The slot named $1. to_jsonb gives each major's own columns.
SELECT to_jsonb(s) || jsonb_build_object(
    'name', s.slot_name,
    'conflicting', coalesce((to_jsonb(s) ->> 'conflicting')::boolean, false),
    'holder', (
        SELECT jsonb_build_object('pid', a.pid, 'application_name', coalesce(a.application_name, ''),
                                  'client', host(a.client_addr))
        FROM pg_stat_activity a
        WHERE a.pid = s.active_pid
    ),
    'current', CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END
)
FROM pg_replication_slots s
WHERE s.slot_name = $1
