CREATE OR REPLACE FUNCTION cdc_audit.ensure_versions_table(
  of_source text, of_table text, of_tenant text, of_wanted text, of_names text[]) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  own text;
BEGIN
  SELECT name INTO own FROM cdc_audit.versions_tables
  WHERE source = of_source AND table_name = of_table AND tenant = of_tenant AND wanted = of_wanted;
  IF own IS NOT NULL THEN
    IF to_regclass(format('cdc_audit.%I', own)) IS NOT NULL THEN
      RETURN own;
    END IF;
  END IF;
  -- Two at once would each create it, or give two tenants one name.
  PERFORM pg_advisory_xact_lock(hashtextextended('cdc_audit.ensure_versions_table', 0));
  -- Who wants the same for the same tenant shares the table; one that was dropped by hand keeps its name.
  SELECT name INTO own FROM cdc_audit.versions_tables WHERE tenant = of_tenant AND wanted = of_wanted LIMIT 1;
  IF own IS NULL THEN
    SELECT wish INTO own FROM unnest(of_names) WITH ORDINALITY AS wishes (wish, nth)
    WHERE octet_length(wish) BETWEEN 1 AND 52
      AND to_regclass(format('cdc_audit.%I', wish)) IS NULL AND to_regclass(format('cdc_audit.%I', wish || '_trail')) IS NULL
      AND NOT EXISTS (SELECT FROM cdc_audit.versions_tables WHERE name = wish)
    ORDER BY nth LIMIT 1;
  END IF;
  IF own IS NULL THEN
    RAISE EXCEPTION 'whatever the table of versions could be called is the name of something else in schema cdc_audit'
      USING ERRCODE = 'duplicate_table';
  END IF;
  IF to_regclass(format('cdc_audit.%I', own)) IS NULL THEN
    EXECUTE format('CREATE TABLE cdc_audit.%I (LIKE cdc_audit.versions INCLUDING ALL) PARTITION BY %s', own,
      pg_get_partkeydef('cdc_audit.versions'::regclass));
    IF of_tenant <> '' THEN
      EXECUTE format('ALTER TABLE cdc_audit.%I ADD CONSTRAINT of_one_tenant CHECK (tenant IS NOT NULL AND tenant = %L)', own, of_tenant);
    END IF;
    PERFORM cdc_audit.share_versions_table(own);
  END IF;
  INSERT INTO cdc_audit.versions_tables (source, table_name, tenant, wanted, name)
  VALUES (of_source, of_table, of_tenant, of_wanted, own) ON CONFLICT DO NOTHING;
  RETURN own;
END
$function$
