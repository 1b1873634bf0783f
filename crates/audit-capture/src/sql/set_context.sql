CREATE OR REPLACE FUNCTION cdc_audit.set_context(context jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $body$
-- Says who makes the changes that follow in this transaction, and why: {"actor_id": 7, "actor": {"name": "Ann"},
-- "reason": "refund"}. It holds until it is called again; NULL and {} clear it. It never fails.
--
-- Its rights are its owner's, for the key that it signs with: only so can a reader of the WAL tell it from anybody else's message.
DECLARE
    -- It is stored with every change of the transaction.
    bytes_max CONSTANT int := 16384;
    field_bytes_max CONSTANT int := 4096;
    kind text := coalesce(jsonb_typeof(context), 'null');
    large boolean := coalesce(pg_column_size(context) > bytes_max, false);
    said jsonb := CASE
        WHEN kind = 'object' THEN context
        WHEN kind = 'null' THEN '{}'
        WHEN large AND kind = 'string' THEN jsonb_build_object('text', left(context #>> '{}', field_bytes_max / 8))
        WHEN large THEN '{}'
        ELSE jsonb_build_object('text', context)
    END;
    session jsonb := jsonb_build_object(
        'session_user', session_user,
        'application_name', current_setting('application_name'),
        'client_addr', host(inet_client_addr())
    );
    message jsonb := '{}';
    signed text;
    -- The WAL keeps the bytes as they are, whatever the encoding of the database.
    encoding CONSTANT text := 'UTF8';
    key record;
    field record;
BEGIN
    -- A message makes a transaction that only reads write a commit record, and a standby cannot write at all.
    IF current_setting('transaction_read_only')::boolean THEN
        RETURN;
    END IF;
    IF said <> '{}' AND NOT large THEN
        -- What the server knows is not for the application to say.
        message := said || session;
    END IF;
    IF large OR octet_length(message::text) > bytes_max THEN
        RAISE WARNING 'the audit context has % bytes and is cut to %',
            greatest(pg_column_size(context), octet_length(message::text)), bytes_max;
        message := session || '{"truncated": true}';
        FOR field IN
            SELECT each.key, each.value
            FROM jsonb_each(said) AS each
            ORDER BY array_position(ARRAY['actor_id', 'actor', 'reason', 'request_id'], each.key) NULLS LAST,
                pg_column_size(each.value), each.key
            LIMIT 100
        LOOP
            -- The beginning of a text is worth something; half a structure is not.
            IF pg_column_size(field.value) > field_bytes_max THEN
                CONTINUE WHEN jsonb_typeof(field.value) <> 'string';
                field.value := to_jsonb(left(field.value #>> '{}', field_bytes_max / 8));
            END IF;
            IF octet_length((jsonb_build_object(field.key, field.value) || message)::text) <= bytes_max THEN
                message := jsonb_build_object(field.key, field.value) || message;
            END IF;
        END LOOP;
    END IF;
    IF getdatabaseencoding() <> encoding THEN
        BEGIN
            PERFORM convert_to(message::text, encoding);
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING 'the audit context has characters that UTF-8 has not, and is left out';
            message := '{"truncated": true}';
        END;
    END IF;
    signed := message::text;
    IF message <> '{}' THEN
        SELECT k.id, k.inner_pad, k.outer_pad INTO key FROM cdc_audit.context_keys k ORDER BY k.id DESC LIMIT 1;
        IF FOUND THEN
            -- HMAC-SHA-256 over the transaction's id and the text without this last field.
            signed := left(signed, -1) || ', "signature": "' || key.id || ':' || encode(sha256(key.outer_pad || sha256(
                key.inner_pad || convert_to(pg_current_xact_id()::xid::text || ':' || signed, encoding)
            )), 'hex') || '"}';
        END IF;
    END IF;
    PERFORM pg_logical_emit_message(true, 'cdc-audit', convert_to(signed, encoding));
    -- For triggers that would say something else: see cdc_audit.context_from_settings.
    PERFORM set_config('cdc_audit.context', 'said', true);
END
$body$
