CREATE OR REPLACE FUNCTION cdc_audit.archive_drop(of_id bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  moved cdc_audit.archive;
  counted bigint;
BEGIN
  SELECT * INTO moved FROM cdc_audit.archive WHERE id = of_id AND state = 'detached' FOR UPDATE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'nothing that was detached has the number %', of_id USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  IF moved.keep_until > now() THEN
    RAISE EXCEPTION '% is kept until %', moved.partition, moved.keep_until USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  EXECUTE format('SELECT count(*) FROM cdc_audit.%I', 'archived_' || of_id) INTO counted;
  IF counted <> moved.versions THEN
    RAISE EXCEPTION '% has % versions, and % were proved', moved.partition, counted, moved.versions
      USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'attach it again, and prove it anew';
  END IF;
  EXECUTE format('DROP TABLE cdc_audit.%I', 'archived_' || of_id);
  UPDATE cdc_audit.archive SET state = 'dropped', ended_at = now() WHERE id = of_id;
END
$function$
