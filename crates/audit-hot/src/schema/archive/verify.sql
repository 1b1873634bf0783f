CREATE OR REPLACE FUNCTION cdc_audit.archive_verify(of_id bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  moved cdc_audit.archive;
  counted bigint;
BEGIN
  SELECT * INTO moved FROM cdc_audit.archive WHERE id = of_id AND state = 'detached';
  IF NOT FOUND THEN
    RAISE EXCEPTION 'nothing that was detached has the number %', of_id USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  EXECUTE format('SELECT count(*) FROM cdc_audit.%I', 'archived_' || of_id) INTO counted;
  IF counted <> moved.versions THEN
    RAISE EXCEPTION '% has % versions, and % were proved', moved.partition, counted, moved.versions
      USING ERRCODE = 'object_not_in_prerequisite_state',
        HINT = format('a version came after the comparison: `cdc-audit archive undo %s` puts the month back', of_id);
  END IF;
END
$function$
