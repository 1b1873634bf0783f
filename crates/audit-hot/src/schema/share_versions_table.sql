CREATE OR REPLACE FUNCTION cdc_audit.share_versions_table(own text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  common text;
  target text;
  may record;
BEGIN
  EXECUTE format('CREATE OR REPLACE VIEW cdc_audit.%I AS ', own || '_trail') || $trail${trail}$trail$ || format(' FROM cdc_audit.%I', own);
  FOR common, target IN VALUES ('versions', own), ('trail', own || '_trail') LOOP
    FOR may IN SELECT acl.grantee, acl.privilege_type FROM pg_class AS c, aclexplode(c.relacl) AS acl
               WHERE c.oid = to_regclass(format('cdc_audit.%I', common)) AND acl.grantee <> c.relowner LOOP
      EXECUTE format('GRANT %s ON cdc_audit.%I TO %s', may.privilege_type, target,
        CASE may.grantee WHEN 0 THEN 'PUBLIC' ELSE may.grantee::regrole::text END);
    END LOOP;
  END LOOP;
END
$function$
