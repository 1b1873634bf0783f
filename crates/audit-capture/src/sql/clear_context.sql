CREATE OR REPLACE FUNCTION cdc_audit.clear_context() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $body$
-- Nobody is said to make the changes that follow in this transaction.
BEGIN
    PERFORM cdc_audit.set_context(NULL);
END
$body$
