CREATE OR REPLACE FUNCTION cdc_audit.archive_prove(
  of_source text, of_partition text, of_versions bigint, of_proof jsonb, of_user text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET "DateStyle" = 'ISO, YMD'
SET "TimeZone" = 'UTC'
AS $function$
DECLARE
  leaf constant oid := to_regclass(format('cdc_audit.%I', of_partition));
  root oid := leaf;
  above oid;
  parent oid;
  bounds text[];
  counted bigint;
  made bigint;
BEGIN
  -- One at a time: two proofs of one partition would both be detached.
  PERFORM pg_advisory_xact_lock(hashtextextended('cdc_audit.archive', 0));
  LOOP
    SELECT inhparent INTO above FROM pg_inherits WHERE inhrelid = root;
    EXIT WHEN NOT FOUND;
    parent := coalesce(parent, above);
    root := above;
  END LOOP;
  IF parent IS NULL OR NOT EXISTS (
    SELECT FROM pg_class AS c WHERE c.oid = root AND c.relnamespace = 'cdc_audit'::regnamespace
      AND (c.relname = 'versions' OR EXISTS (SELECT FROM cdc_audit.versions_tables AS own WHERE own.name = c.relname))
  ) OR EXISTS (SELECT FROM pg_inherits WHERE inhparent = leaf) THEN
    RAISE EXCEPTION 'not a partition of versions: %', of_partition USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  SELECT regexp_match(pg_get_expr(relpartbound, oid), $re$^FOR VALUES FROM \('([^']+)'\) TO \('([^']+)'\)$$re$)
  INTO bounds FROM pg_class WHERE oid = leaf;
  IF bounds IS NULL OR bounds[2]::timestamptz > now() THEN
    RAISE EXCEPTION 'the month of % is not over', of_partition USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  EXECUTE format('SELECT count(*) FROM cdc_audit.%I', of_partition) INTO counted;
  IF counted IS DISTINCT FROM of_versions THEN
    RAISE EXCEPTION '% has % versions, and % were proved', of_partition, counted, of_versions
      USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'a version came meanwhile: prove it again';
  END IF;
  UPDATE cdc_audit.archive SET state = 'returned', ended_at = now()
  WHERE partition = of_partition AND state = 'proved';
  INSERT INTO cdc_audit.archive (source, versions_table, parent, partition, from_time, to_time, state, versions, proof, os_user)
  SELECT of_source, r.relname, p.relname, of_partition, bounds[1]::timestamptz, bounds[2]::timestamptz, 'proved', of_versions,
    of_proof, of_user
  FROM pg_class AS r, pg_class AS p WHERE r.oid = root AND p.oid = parent
  RETURNING id INTO made;
  RETURN made;
END
$function$
