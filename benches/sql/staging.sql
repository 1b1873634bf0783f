-- The captured tables, what their workloads are made from (unlogged: it makes no WAL), and a publication for each.
-- W1 is narrow (5 columns), W2 wide (20 columns). :n1 and :n2 are the rows to make.
SET client_min_messages = warning;
CREATE TABLE w1 (
  id bigint PRIMARY KEY, bid int NOT NULL, abalance int NOT NULL, mtime timestamptz NOT NULL, filler text NOT NULL);
CREATE TABLE w2 (
  id bigint PRIMARY KEY, account_id uuid NOT NULL, email text NOT NULL, full_name text,
  status text NOT NULL, amount numeric(18,4), balance numeric(18,4), tax numeric(10,4),
  currency text, created_at timestamptz, updated_at timestamptz, due_date date,
  is_active boolean, retries int, score double precision, attrs jsonb,
  address text, note text, ref uuid, version int);
CREATE TABLE latency (id bigint PRIMARY KEY, filler text NOT NULL);
CREATE UNLOGGED TABLE s1 (LIKE w1);
CREATE UNLOGGED TABLE s2 (LIKE w2);
SELECT setseed(0.42);
INSERT INTO s1 SELECT i, (i % 100)::int, (random()*1e6)::int, now() - i * interval '1 second',
  substr(md5(i::text) || md5((i+1)::text), 1, 60) FROM generate_series(1, :n1) i;
CREATE TEMP TABLE dict AS SELECT row_number() OVER () - 1 AS k,
  substr(translate(md5(i::text), '0123456789', 'ghijklmnop'), 1, 3 + (i % 8)) AS w
  FROM generate_series(1, 4000) i;
-- Texts are slices of one long word list: cheap to make, compressible like prose.
CREATE TEMP TABLE prose AS SELECT string_agg(w, ' ' ORDER BY md5(k::text)) AS t FROM dict;
CREATE TEMP TABLE slice AS
  SELECT k, substr(t, k, 16) AS short, substr(t, k, 60) AS line, substr(t, k, 70) AS comment, substr(t, k, 330) AS paragraph
  FROM prose, generate_series(1, 20000) k;
ANALYZE slice;
SET work_mem = '256MB';
INSERT INTO s2 SELECT i, gen_random_uuid(), 'user' || (random()*5e5)::int || '@example' || (i % 40) || '.com',
  name.short, (ARRAY['new','paid','shipped','delivered','cancelled','returned'])[1 + i % 6],
  (random()*1e4)::numeric(18,4), (random()*1e6)::numeric(18,4), (random()*100)::numeric(10,4),
  (ARRAY['EUR','USD','GBP','CHF','JPY'])[1 + i % 5], now() - random() * interval '1000 days',
  now() - random() * interval '1 day', current_date + (i % 700)::int, i % 2 = 0, (i % 5)::int, random()*1000,
  jsonb_build_object('plan', 'p' || i % 9, 'tags', jsonb_build_array('t' || i % 50, 't' || i % 37),
     'flags', jsonb_build_object('beta', i % 2 = 0, 'vip', i % 3 = 0),
     'limits', jsonb_build_object('cpu', i % 64, 'mem', i % 4096),
     'source', substr(md5(i::text), 1, 24), 'comment', remark.comment),
  (i % 999) || ' ' || street.line, note.paragraph, gen_random_uuid(), (i % 40)::int
  FROM (SELECT i, 1 + (random()*19999)::int AS a, 1 + (random()*19999)::int AS b, 1 + (random()*19999)::int AS c,
               1 + (random()*19999)::int AS d FROM generate_series(1, :n2) i OFFSET 0) row
  JOIN slice name ON name.k = a JOIN slice street ON street.k = b JOIN slice remark ON remark.k = c JOIN slice note ON note.k = d
  ORDER BY i;
ALTER TABLE s1 ADD PRIMARY KEY (id);
ALTER TABLE s2 ADD PRIMARY KEY (id);
CREATE PUBLICATION pub_w1 FOR TABLE w1;
CREATE PUBLICATION pub_w2 FOR TABLE w2;
CREATE PUBLICATION pub_latency FOR TABLE latency;
-- Inserts rows lo to hi of stage table s into t, txrows rows a transaction.
CREATE PROCEDURE gen_insert(t text, s text, lo bigint, hi bigint, txrows bigint) LANGUAGE plpgsql AS $$
DECLARE i bigint := lo;
BEGIN
  WHILE i <= hi LOOP
    EXECUTE format('INSERT INTO %I SELECT * FROM %I WHERE id BETWEEN $1 AND $2', t, s) USING i, least(i + txrows - 1, hi);
    COMMIT;
    i := i + txrows;
  END LOOP;
END $$;
CREATE PROCEDURE gen_update(t text, sets text, lo bigint, hi bigint, txrows bigint) LANGUAGE plpgsql AS $$
DECLARE i bigint := lo;
BEGIN
  WHILE i <= hi LOOP
    EXECUTE format('UPDATE %I SET %s WHERE id BETWEEN $1 AND $2', t, sets) USING i, least(i + txrows - 1, hi);
    COMMIT;
    i := i + txrows;
  END LOOP;
END $$;
ANALYZE;
