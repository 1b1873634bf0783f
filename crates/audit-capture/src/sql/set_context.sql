CREATE OR REPLACE FUNCTION cdc_audit.set_context(context jsonb) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $body$
-- Says who makes the changes that follow in this transaction, and why: {"actor_id": 7, "actor": {"name": "Ann"},
-- "reason": "refund"}. It holds until it is called again; NULL and {} clear it. It never fails.
DECLARE
    -- It is stored with every change of the transaction.
    bytes_max CONSTANT int := 16384;
    field_bytes_max CONSTANT int := 4096;
    said jsonb := CASE coalesce(jsonb_typeof(context), 'null')
        WHEN 'object' THEN context
        WHEN 'null' THEN '{}'
        ELSE jsonb_build_object('text', context)
    END;
    session jsonb := jsonb_build_object(
        'session_user', session_user,
        'application_name', current_setting('application_name'),
        'client_addr', host(inet_client_addr())
    );
    message jsonb := '{}';
    field record;
BEGIN
    -- A message makes a transaction that only reads write a commit record, and a standby cannot write at all.
    IF current_setting('transaction_read_only')::boolean THEN
        RETURN;
    END IF;
    IF said <> '{}' THEN
        -- What the server knows is not for the application to say.
        message := said || session;
    END IF;
    IF octet_length(message::text) > bytes_max THEN
        RAISE WARNING 'the audit context has % bytes and is cut to %', octet_length(message::text), bytes_max;
        message := session || '{"truncated": true}';
        FOR field IN
            SELECT key, value
            FROM jsonb_each(said)
            ORDER BY array_position(ARRAY['actor_id', 'actor', 'reason', 'request_id'], key) NULLS LAST,
                octet_length(value::text), key
            LIMIT 100
        LOOP
            -- The beginning of a text is worth something; half a structure is not.
            IF octet_length(field.value::text) > field_bytes_max THEN
                CONTINUE WHEN jsonb_typeof(field.value) <> 'string';
                field.value := to_jsonb(left(field.value #>> '{}', field_bytes_max / 8));
            END IF;
            IF octet_length((jsonb_build_object(field.key, field.value) || message)::text) <= bytes_max THEN
                message := jsonb_build_object(field.key, field.value) || message;
            END IF;
        END LOOP;
    END IF;
    -- The WAL keeps the bytes as they are, whatever the encoding of the database.
    PERFORM pg_logical_emit_message(true, 'cdc-audit', convert_to(message::text, 'UTF8'));
END
$body$
