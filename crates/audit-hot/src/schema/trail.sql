SELECT source, position, table_name, item_type, key, old_key, event,
  CASE
    WHEN changes IS NOT NULL THEN changes
    WHEN event IN ('created', 'snapshot') THEN
      (SELECT coalesce(jsonb_object_agg(name, jsonb_build_array(NULL, value)), '{}') FROM jsonb_each(after) AS image(name, value)
       WHERE after IS NOT NULL)
    WHEN event = 'deleted' THEN
      (SELECT coalesce(jsonb_object_agg(name, jsonb_build_array(value, NULL)), '{}') FROM jsonb_each(before) AS image(name, value)
       WHERE before IS NOT NULL)
    ELSE changes
  END AS changes,
  before, after, changed, before_known, coalesce(unknown, '{}') AS unknown, coalesce(carried, '{}') AS carried, included,
  actor_id, actor, reason, context, actor_source, context_verified, xid, commit_lsn, lsn, seq, committed_at, recorded_at,
  schema_version, baseline, tenant
