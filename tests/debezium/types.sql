-- Every type that Debezium's connector for PostgreSQL knows, and every way in which a row can change.
CREATE EXTENSION hstore;
CREATE EXTENSION ltree;
CREATE EXTENSION citext;
CREATE TYPE mood AS ENUM ('sad', 'it''s, "fine"');
CREATE DOMAIN positive AS int4 CHECK (VALUE > 0);
CREATE TYPE pair AS (a int4, b text);
CREATE TABLE kinds (
    id int4 PRIMARY KEY,
    a_bool bool, a_bit1 bit(1), a_bit9 bit(9), a_varbit varbit, a_varbit9 varbit(9),
    an_int2 int2, an_int8 int8, an_oid oid, a_float4 float4, a_float8 float8,
    a_numeric18_4 numeric(18,4), a_numeric5 numeric(5), a_numeric3_n2 numeric(3,-2), a_numeric numeric, a_money money,
    a_char4 char(4), a_varchar varchar(10), a_text text, a_name name, a_citext citext, a_bytea bytea,
    a_date date, a_time time, a_time3 time(3), a_timetz timetz,
    a_timestamp timestamp, a_timestamp0 timestamp(0), a_timestamp3 timestamp(3), a_timestamptz timestamptz, an_interval interval,
    a_time0 time(0), a_timetz3 timetz(3), a_timestamptz0 timestamptz(0), a_timestamptz3 timestamptz(3), a_varbit1 varbit(1),
    a_uuid uuid, a_json json, a_jsonb jsonb, an_xml xml,
    an_inet inet, a_cidr cidr, a_macaddr macaddr, a_macaddr8 macaddr8,
    an_int4range int4range, an_int8range int8range, a_numrange numrange, a_tsrange tsrange, a_tstzrange tstzrange, a_daterange daterange,
    a_point point, a_line line, an_lseg lseg, a_box box, a_path path, a_polygon polygon, a_circle circle,
    a_tsvector tsvector, a_tsquery tsquery, a_mood mood, a_positive positive, a_pair pair, an_hstore hstore, an_ltree ltree,
    some_bool bool[], some_int2 int2[], some_int4 int4[], some_int8 int8[], some_float4 float4[], some_float8 float8[],
    some_numeric numeric[], some_numeric10_2 numeric(10,2)[], some_text text[], some_varchar varchar(9)[], some_char char(3)[],
    some_bytea bytea[], some_date date[], some_time time[], some_timetz timetz[],
    some_timestamp timestamp[], some_timestamptz timestamptz[], some_uuid uuid[], some_json json[], some_jsonb jsonb[],
    some_inet inet[], some_int4range int4range[], some_mood mood[], some_interval interval[], some_money money[], some_oid oid[]
);
CREATE TABLE whole (part text, id int8, name text NOT NULL DEFAULT 'x', price numeric(8,2) NOT NULL, doc jsonb, at timestamptz, PRIMARY KEY (id, part));
ALTER TABLE whole REPLICA IDENTITY FULL;
CREATE TABLE keyless (name text, n int4);
ALTER TABLE keyless REPLICA IDENTITY FULL;
CREATE TABLE toasted (id int4 PRIMARY KEY, n int4, big text, big_bytes bytea, big_doc jsonb, big_list text[], big_ints int4[], big_number numeric,
    big_map hstore, big_longs int8[], big_shorts int2[], big_uuids uuid[], big_dates date[], big_flags bool[], big_floats float8[], big_times timestamptz[],
    big_bits varbit, big_tree xml, big_vector tsvector, big_docs jsonb[], big_chars varchar[]);
ALTER TABLE toasted ALTER big SET STORAGE EXTERNAL, ALTER big_bytes SET STORAGE EXTERNAL, ALTER big_doc SET STORAGE EXTERNAL,
    ALTER big_list SET STORAGE EXTERNAL, ALTER big_ints SET STORAGE EXTERNAL, ALTER big_number SET STORAGE EXTERNAL,
    ALTER big_map SET STORAGE EXTERNAL, ALTER big_longs SET STORAGE EXTERNAL, ALTER big_shorts SET STORAGE EXTERNAL, ALTER big_uuids SET STORAGE EXTERNAL,
    ALTER big_dates SET STORAGE EXTERNAL, ALTER big_flags SET STORAGE EXTERNAL, ALTER big_floats SET STORAGE EXTERNAL, ALTER big_times SET STORAGE EXTERNAL,
    ALTER big_bits SET STORAGE EXTERNAL, ALTER big_tree SET STORAGE EXTERNAL, ALTER big_vector SET STORAGE EXTERNAL, ALTER big_docs SET STORAGE EXTERNAL,
    ALTER big_chars SET STORAGE EXTERNAL;
-- Here they begin.

INSERT INTO kinds VALUES (1,
    true, B'1', B'100000011', B'1010101011', B'101',
    -32768, 9223372036854775807, 4294967295, 1.5, 0.1,
    12345678901234.5678, 12345, 12300, 1234567890.1234567890, '$1,234.50',
    'ab', 'é', E'tab\t"quote" \\ 😀', 'a_name', 'CiText', '\x00ff10',
    '2026-03-01', '09:30:01.123456', '09:30:01.123', '09:30:01.5+05:30',
    '2026-03-01 09:30:01.123456', '2026-03-01 09:30:01', '2026-03-01 09:30:01.123', '2026-03-01 09:30:01.120000+02', '1 year 2 mons 3 days 04:05:06.789',
    '09:30:01', '09:30:01.120+02', '2026-03-01 09:30:01+00', '2026-03-01 09:30:01.120+00', B'1',
    '6f1c1c1e-6d0a-4c0e-9d5a-0123456789ab', '{"a":1, "a": 2.50}', '{"b": 1.50, "a": [null, "é"]}', '<a>b</a>',
    '10.0.0.1/24', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05',
    '[1,5)', '[1,5)', '(1.5,2.5]', '["2026-03-01 00:00:00","2026-03-02 00:00:00")', '["2026-03-01 00:00:00+00",)', '[2026-03-01,2026-03-02)',
    '(1.5,-2)', '{1,2,3}', '[(0,0),(1,1)]', '(2,2),(0,0)', '((0,0),(1,1),(2,0))', '((0,0),(1,1),(2,0))', '<(1,2),3>',
    'a:1 fat:2,4 cat:3', 'fat & rat', 'it''s, "fine"', 7, '(1,"x y")', 'a=>1, b=>NULL, "c d"=>"e\"f"', 'top.science',
    '{t,f,NULL}', '{1,-2,NULL}', '{1,2,NULL}', '{1,2,NULL}', '{1.5,NaN,NULL}', '{0.1,NULL}',
    '{1.5,NULL}', '{1.50,2,NULL}', '{"a,b","c\"d",NULL,"NULL"}', '{ab,NULL}', '{ab,NULL}',
    '{"\\x00ff",NULL}', '{2026-03-01,NULL}', '{09:30:01.123456,NULL}', '{09:30:01+02,NULL}',
    '{"2026-03-01 09:30:01.5",NULL}', '{"2026-03-01 09:30:01.5+00",NULL}', '{6f1c1c1e-6d0a-4c0e-9d5a-0123456789ab,NULL}', '{"{\"a\": 1}",NULL}', '{"{\"a\": 1}",NULL}',
    '{10.0.0.1,NULL}', '{"[1,5)",NULL}', '{sad,NULL}', '{"1 day",NULL}', '{$1.50,NULL}', '{1,NULL}');
INSERT INTO kinds (id) VALUES (2);
INSERT INTO kinds (id, a_bit9, a_varbit, a_float4, a_float8, a_numeric18_4, a_numeric5, a_numeric, a_money, a_date, a_time, a_timetz,
    a_timestamp, a_timestamp0, a_timestamp3, a_timestamptz, an_interval, a_jsonb, an_inet, a_path, some_int4, some_text, a_bytea) VALUES
    (3, B'000000001', B'', 'NaN', 'Infinity', -0.0001, -1, '0', '-$0.01', '0044-03-15 BC', '24:00', '24:00-08',
     'infinity', 'infinity', '-infinity', 'infinity', '-1 mon -00:00:00.000001', 'null', '::1', '[(0,0),(1,1)]', '{}', '{}', ''),
    (4, B'111111111', B'1', '-Infinity', '-0', 0, 0, '100', '$0.00', 'infinity', '00:00', '00:00+00',
     '1969-12-31 23:59:59.999999', '0044-03-15 12:00:00 BC', '294276-12-31 23:59:59.999', '0044-03-15 12:00:00.5+00 BC', '0', '"text"', '10.0.0.1', '((0,0))',
     '{{1,2},{3,4}}', '{{a,b},{c,d}}', '\x'),
    (5, NULL, NULL, 1e-38, 1e300, 1, 1, '-1.5e-20', '$1.00', '-infinity', '23:59:59.999999', '12:00:00.000001-00:30',
     '0001-01-01 00:00:00', '1970-01-01 00:00:00', '1582-10-10 00:00:00', '2026-03-01 09:30:00.000001+00', '178000000 years', '1.50', '10.0.0.1/32', NULL,
     '[0:1]={7,8}', '{NULL}', '\xff'),
    (6, NULL, NULL, 16777216, 123456789012345680, 1, 1, '1e20', '$1.00', '9999-12-31', '00:00:00.001', '12:00:00+14',
     '-infinity', '-infinity', 'infinity', '-infinity', '1 mon -1 day', 'true', NULL, NULL, NULL, NULL, NULL);

INSERT INTO kinds (id, a_numeric18_4, a_numeric) VALUES (7, 'NaN', 'NaN'), (8, NULL, 'Infinity'), (9, NULL, '12345678901234567890123456789012345678901234567890.5');
INSERT INTO kinds (id, an_hstore, a_tsvector, a_bit9, some_numeric) VALUES (10, '', '', B'000000000', '{NaN}');

INSERT INTO whole VALUES ('p', 1, 'Ann', 1.50, '{"a": 1}', '2026-03-01 09:30:00+00');
UPDATE whole SET name = 'Bea', doc = NULL WHERE id = 1;
UPDATE whole SET id = 2 WHERE id = 1;
UPDATE whole SET name = name;
DELETE FROM whole WHERE id = 2;
INSERT INTO keyless VALUES ('a', 1), (NULL, NULL);
UPDATE keyless SET n = 2 WHERE n = 1;
DELETE FROM keyless;
INSERT INTO toasted VALUES (1, 1, repeat('x', 9000), decode(repeat('ff', 9000), 'hex'), to_jsonb(repeat('y', 9000)), ARRAY[repeat('z', 9000)],
    (SELECT array_agg(n) FROM generate_series(1, 9000) n), repeat('9', 9000)::numeric,
    hstore('k', repeat('x', 9000)), (SELECT array_agg(n) FROM generate_series(1, 4000) n), (SELECT array_agg(1) FROM generate_series(1, 4000) n),
    (SELECT array_agg('6f1c1c1e-6d0a-4c0e-9d5a-0123456789ab'::uuid) FROM generate_series(1, 900) n), (SELECT array_agg('2026-03-01'::date) FROM generate_series(1, 4000) n),
    (SELECT array_agg(true) FROM generate_series(1, 9000) n), (SELECT array_agg(n) FROM generate_series(1, 4000) n),
    (SELECT array_agg('2026-03-01'::timestamptz) FROM generate_series(1, 4000) n), repeat('1', 90000)::varbit, ('<a>' || repeat('x', 9000) || '</a>')::xml,
    array_to_tsvector((SELECT array_agg('w' || n) FROM generate_series(1, 2000) n)), ARRAY[to_jsonb(repeat('y', 9000))], ARRAY[repeat('z', 9000)]);
UPDATE toasted SET n = 2 WHERE id = 1;
UPDATE toasted SET id = 2 WHERE id = 1;
UPDATE toasted SET n = 3 WHERE id = 2;
DELETE FROM toasted WHERE id = 2;
BEGIN;
INSERT INTO toasted (id, n) VALUES (3, 3);
INSERT INTO keyless VALUES ('in one', 2);
COMMIT;
SELECT pg_logical_emit_message(true, 'note', 'text');
TRUNCATE keyless, toasted;
