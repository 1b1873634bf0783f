CREATE OR REPLACE FUNCTION cdc_audit.context_from_settings() RETURNS trigger
LANGUAGE plpgsql
AS $body$
-- Gives cdc_audit.set_context what the application's settings say. The trigger's arguments are pairs: a setting, the context's field.
-- `cdc_audit.context` remembers, as long as the transaction or its savepoint lasts, what was given already; a context that the
-- application gave itself counts for more.
--
-- It runs once for each statement, so it is spared a search path of its own: every name says where it is from.
DECLARE
    given text := coalesce(pg_catalog.current_setting('cdc_audit.context', true), '');
    found text := '';
    value text;
    said pg_catalog.jsonb := '{}';
BEGIN
    IF given OPERATOR(pg_catalog.=) 'said' THEN
        RETURN NULL;
    END IF;
    FOR at IN 0 .. TG_NARGS OPERATOR(pg_catalog.-) 1 BY 2 LOOP
        value := pg_catalog.current_setting(TG_ARGV[at], true);
        IF value OPERATOR(pg_catalog.<>) '' THEN
            found := found OPERATOR(pg_catalog.||) TG_ARGV[at] OPERATOR(pg_catalog.||) '=' OPERATOR(pg_catalog.||) value
                OPERATOR(pg_catalog.||) ';';
        END IF;
    END LOOP;
    IF found OPERATOR(pg_catalog.=) given THEN
        RETURN NULL;
    END IF;
    FOR at IN 0 .. TG_NARGS OPERATOR(pg_catalog.-) 1 BY 2 LOOP
        value := pg_catalog.current_setting(TG_ARGV[at], true);
        IF value OPERATOR(pg_catalog.<>) '' THEN
            said := said OPERATOR(pg_catalog.||) pg_catalog.jsonb_build_object(TG_ARGV[at OPERATOR(pg_catalog.+) 1], value);
        END IF;
    END LOOP;
    PERFORM cdc_audit.set_context(said);
    PERFORM pg_catalog.set_config('cdc_audit.context', found, true);
    RETURN NULL;
END
$body$
