-- The server and its settings.
SELECT jsonb_build_object(
    'version', current_setting('server_version'),
    'major', current_setting('server_version_num')::int / 10000,
    'database', current_database(),
    'quoted_database', quote_ident(current_database()),
    'encoding', (SELECT pg_encoding_to_char(d.encoding) FROM pg_database d WHERE d.datname = current_database()),
    'in_recovery', pg_is_in_recovery(),
    'synchronous_standby_names', current_setting('synchronous_standby_names'),
    'wal_level', current_setting('wal_level'),
    'max_replication_slots', current_setting('max_replication_slots')::int,
    'replication_slots', (SELECT count(*) FROM pg_replication_slots),
    'max_wal_senders', current_setting('max_wal_senders')::int,
    'wal_senders', (SELECT count(*) FROM pg_stat_replication),
    'max_slot_wal_keep_mb', (SELECT s.setting::bigint FROM pg_settings s WHERE s.name = 'max_slot_wal_keep_size'),
    'idle_slot_timeout', nullif(current_setting('idle_replication_slot_timeout', true), '0'),
    'wal_sender_timeout_ms', (SELECT s.setting::bigint FROM pg_settings s WHERE s.name = 'wal_sender_timeout'),
    'standby_slots', (
        SELECT coalesce(jsonb_agg(jsonb_build_object('name', s.slot_name, 'active', s.active) ORDER BY s.slot_name), '[]')
        FROM pg_replication_slots s
        WHERE s.slot_type = 'physical' AND NOT s.temporary
    ),
    'synchronized_standby_slots', coalesce(current_setting('synchronized_standby_slots', true), '')
)
