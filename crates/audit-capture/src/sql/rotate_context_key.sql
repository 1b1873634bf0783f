CREATE OR REPLACE FUNCTION cdc_audit.rotate_context_key() RETURNS int
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $body$
-- Makes the key that cdc_audit.set_context signs with from now on, and returns its id. The last three stay valid: what they signed may
-- still be in the WAL. Older ones stay only to tell which shapes of tables a daemon stored under them. Only the owner of the keys can call it.
DECLARE
    secret bytea := sha256(
        uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())
    );
    made int;
BEGIN
    LOCK TABLE cdc_audit.context_keys IN SHARE ROW EXCLUSIVE MODE;
    INSERT INTO cdc_audit.context_keys (id, inner_pad, outer_pad)
    SELECT
        coalesce((SELECT max(k.id) FROM cdc_audit.context_keys k), 0) + 1,
        decode(string_agg(lpad(to_hex(byte # 54), 2, '0'), '' ORDER BY place), 'hex'),
        decode(string_agg(lpad(to_hex(byte # 92), 2, '0'), '' ORDER BY place), 'hex')
    FROM (
        SELECT place, CASE WHEN place < 32 THEN get_byte(secret, place) ELSE 0 END
        FROM generate_series(0, 63) AS places (place)
    ) AS padded (place, byte)
    RETURNING id INTO made;
    RETURN made;
END
$body$
