CREATE OR REPLACE FUNCTION cdc_audit.archive_attach(of_id bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '{lock_timeout}'
AS $function$
DECLARE
  moved cdc_audit.archive;
  name constant text := 'archived_' || of_id;
BEGIN
  SELECT * INTO moved FROM cdc_audit.archive WHERE id = of_id AND state = 'detached' FOR UPDATE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'nothing that was detached has the number %', of_id USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  IF to_regclass(format('cdc_audit.%I', moved.partition)) IS NOT NULL THEN
    -- Versions that came late are in a partition of their own, which gives way.
    EXECUTE format('LOCK TABLE ONLY cdc_audit.%I IN ACCESS EXCLUSIVE MODE', moved.versions_table);
    EXECUTE format('ALTER TABLE cdc_audit.%I DETACH PARTITION cdc_audit.%I', moved.parent, moved.partition);
    EXECUTE format('INSERT INTO cdc_audit.%I SELECT * FROM cdc_audit.%I', name, moved.partition);
    EXECUTE format('DROP TABLE cdc_audit.%I', moved.partition);
  END IF;
  EXECUTE format('ALTER TABLE cdc_audit.%I RENAME TO %I', name, moved.partition);
  EXECUTE format('ALTER TABLE cdc_audit.%I ATTACH PARTITION cdc_audit.%I FOR VALUES FROM (%L) TO (%L)', moved.parent,
    moved.partition, moved.from_time, moved.to_time);
  UPDATE cdc_audit.archive SET state = 'returned', ended_at = now() WHERE id = of_id;
END
$function$
