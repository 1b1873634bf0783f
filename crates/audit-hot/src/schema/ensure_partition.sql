CREATE OR REPLACE FUNCTION cdc_audit.ensure_partition(of_table text, of_month date, of_versions text DEFAULT 'versions') RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET "DateStyle" = 'ISO, YMD'
SET "TimeZone" = 'UTC'
AS $function$
DECLARE
  by_table constant boolean := (SELECT partstrat = 'l' FROM pg_partitioned_table
                                WHERE partrelid = 'cdc_audit.versions'::regclass);
  year text := extract(year FROM of_month);
  label text;
  parent text := of_versions;
  child text;
  hash constant text := md5(CASE of_versions WHEN 'versions' THEN of_table ELSE of_versions || '/' || of_table END);
  -- As pg_get_expr prints it.
  bound constant text := 'FOR VALUES IN (' || chr(39) || replace(of_table, chr(39), chr(39) || chr(39)) || chr(39) || ')';
BEGIN
  IF of_month IS NULL OR of_month < date '0001-01-01' OR of_month > date '294276-11-01'
     OR of_month <> date_trunc('month', of_month) THEN
    RAISE EXCEPTION 'not the first day of a month: %', of_month USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF by_table AND (of_table IS NULL OR length(of_table) NOT BETWEEN 1 AND 300) THEN
    RAISE EXCEPTION 'not the name of a table' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF of_versions IS DISTINCT FROM 'versions'
     AND NOT EXISTS (SELECT FROM cdc_audit.versions_tables WHERE name = of_versions) THEN
    RAISE EXCEPTION 'not a table of versions' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  label := lpad(year, greatest(length(year), 4), '0') || '_' || to_char(of_month, 'MM');
  IF by_table THEN
    -- Readable, and different for different tables whatever characters they have.
    parent := 'v_' || left(regexp_replace(lower(of_table), '[^a-z0-9]+', '_', 'g'), 32) || '_';
    -- Half of that hash may be another table's by chance: then this one has more of it.
    parent := parent || CASE WHEN EXISTS (
      SELECT FROM pg_class WHERE oid = to_regclass(format('cdc_audit.%I', parent || left(hash, 8)))
        AND relispartition AND pg_get_expr(relpartbound, oid) <> bound
    ) THEN left(hash, 16) ELSE left(hash, 8) END;
  END IF;
  child := parent || '_' || label;

  IF EXISTS (SELECT FROM pg_inherits WHERE inhrelid = to_regclass(format('cdc_audit.%I', child))) THEN
    RETURN;
  END IF;
  -- Two at once would each create it. Waiting, and looking again with a new snapshot, is all it takes.
  PERFORM pg_advisory_xact_lock(hashtextextended('cdc_audit.ensure_partition', 0));
  IF EXISTS (SELECT FROM pg_inherits WHERE inhrelid = to_regclass(format('cdc_audit.%I', child))) THEN
    RETURN;
  END IF;

  IF by_table AND to_regclass(format('cdc_audit.%I', parent)) IS NULL THEN
    EXECUTE format('CREATE TABLE cdc_audit.%I (LIKE cdc_audit.%I INCLUDING ALL) PARTITION BY RANGE (committed_at)', parent, of_versions);
    EXECUTE format('ALTER TABLE cdc_audit.%I ATTACH PARTITION cdc_audit.%I FOR VALUES IN (%L)', of_versions, parent, of_table);
  END IF;
  -- CREATE … PARTITION OF locks the parent against readers and would wait behind every long report; ATTACH does not.
  -- It has nothing to scan: the table is empty.
  EXECUTE format('CREATE TABLE cdc_audit.%I (LIKE cdc_audit.%I INCLUDING ALL) WITH (toast_tuple_target = 8160)', child, of_versions);
  EXECUTE format('ALTER TABLE cdc_audit.%I ATTACH PARTITION cdc_audit.%I FOR VALUES FROM (%L) TO (%L)', parent, child,
    of_month::timestamp AT TIME ZONE 'UTC', (of_month + interval '1 month') AT TIME ZONE 'UTC');
END
$function$
