CREATE OR REPLACE FUNCTION cdc_audit.archive_detach(of_id bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '{lock_timeout}'
AS $function$
DECLARE
  moved cdc_audit.archive;
BEGIN
  SELECT * INTO moved FROM cdc_audit.archive WHERE id = of_id AND state = 'proved' FOR UPDATE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'nothing that was proved has the number %', of_id USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  -- The table above first: readers lock it, and where it has very many partitions they lock nothing else.
  EXECUTE format('LOCK TABLE ONLY cdc_audit.%I IN ACCESS EXCLUSIVE MODE', moved.versions_table);
  EXECUTE format('ALTER TABLE cdc_audit.%I DETACH PARTITION cdc_audit.%I', moved.parent, moved.partition);
  -- A version that comes late gets a partition of the old name.
  EXECUTE format('ALTER TABLE cdc_audit.%I RENAME TO %I', moved.partition, 'archived_' || of_id);
  UPDATE cdc_audit.archive SET state = 'detached', detached_at = now(), keep_until = now() + interval '{grace}' WHERE id = of_id;
END
$function$
