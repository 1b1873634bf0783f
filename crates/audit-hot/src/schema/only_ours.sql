DO $do$ DECLARE foreign_things text; BEGIN
  WITH trusted AS (
    SELECT r.oid FROM pg_catalog.pg_roles r
    WHERE r.rolsuper OR r.rolname IN (SESSION_USER, CURRENT_USER{roles})
       OR r.oid = (SELECT d.datdba FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
  ), found AS (
    SELECT 'schema cdc_audit' AS what, n.nspowner AS owner
    FROM pg_catalog.pg_namespace n WHERE n.nspname = 'cdc_audit'
    UNION ALL
    SELECT pg_catalog.format('cdc_audit.%I', c.relname), c.relowner
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'cdc_audit' AND c.relname IN ({names})
    UNION ALL
    SELECT pg_catalog.format('function cdc_audit.%I', p.proname), p.proowner
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = 'cdc_audit'
  )
  SELECT pg_catalog.string_agg(pg_catalog.format('%s of role %I', what, pg_catalog.pg_get_userbyid(owner)), ', ' ORDER BY what)
  INTO foreign_things FROM found WHERE owner NOT IN (SELECT oid FROM trusted);
  IF foreign_things IS NOT NULL THEN
    RAISE EXCEPTION 'cdc-audit did not make what is there: %', foreign_things
      USING HINT = 'if that role is to own the audit tables, run setup with --owner and its name; drop nothing before you know what it is, because a trail may lie in it';
  END IF;
END $do$
