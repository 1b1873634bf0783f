-- the tables outside; the cluster's default role must be allowed to read the bucket and to write to the Glue Data Catalog
CREATE EXTERNAL SCHEMA IF NOT EXISTS "shop_lake"
FROM DATA CATALOG DATABASE 'shop_redshift'
IAM_ROLE default
CREATE EXTERNAL DATABASE IF NOT EXISTS;

-- the views
CREATE SCHEMA IF NOT EXISTS "shop";

-- only the definition is dropped
DROP TABLE IF EXISTS "shop_lake"."lake__public_items";

-- public.items by its files, of all days: Redshift Spectrum reads no Delta log and computes no partitions; bounds on cdc_committed_at skip row groups
CREATE EXTERNAL TABLE "shop_lake"."lake__public_items" (
  "cdc_source" VARCHAR(65535),
  "cdc_position" VARCHAR(65535),
  "cdc_table_name" VARCHAR(65535),
  "cdc_key" VARCHAR(65535),
  "cdc_event" VARCHAR(65535),
  "cdc_changes" VARCHAR(65535),
  "cdc_changed" ARRAY<VARCHAR(65535)>,
  "cdc_before_known" BOOLEAN,
  "cdc_committed_at" TIMESTAMP,
  "cdc_schema_version" INTEGER,
  "cdc_exact" VARCHAR(65535),
  "id" BIGINT,
  "paid" BOOLEAN,
  "share" DOUBLE PRECISION,
  "price" DECIMAL(10, 2),
  "photo" VARBYTE(1024000),
  "due" DATE,
  "at" TIMESTAMP,
  "it_s__" VARCHAR(65535),
  "doc" VARCHAR(65535),
  "price__2" VARCHAR(65535),
  "count" SMALLINT,
  "count__2" INTEGER,
  "text" VARCHAR(65535),
  "body" VARCHAR(65535))
STORED AS PARQUET
LOCATION 's3://acme-audit/shop/public.items/data/';

-- only the definition is dropped
DROP TABLE IF EXISTS "shop_lake"."lake__odd_schema_a_b__7f818cea";

-- Odd Schema."a.b" by its files, of all days: Redshift Spectrum reads no Delta log and computes no partitions; bounds on cdc_committed_at skip row groups
CREATE EXTERNAL TABLE "shop_lake"."lake__odd_schema_a_b__7f818cea" (
  "cdc_source" VARCHAR(65535),
  "cdc_position" VARCHAR(65535),
  "cdc_table_name" VARCHAR(65535),
  "cdc_key" VARCHAR(65535),
  "cdc_event" VARCHAR(65535),
  "cdc_changes" VARCHAR(65535),
  "cdc_changed" ARRAY<VARCHAR(65535)>,
  "cdc_before_known" BOOLEAN,
  "cdc_committed_at" TIMESTAMP,
  "cdc_schema_version" INTEGER,
  "cdc_exact" VARCHAR(65535))
STORED AS PARQUET
LOCATION 's3://acme-audit/shop/Odd-20Schema.-22a.b-22/data/';

-- a view is replaced only by one with the same columns
DROP VIEW IF EXISTS "shop"."public_items";

-- public.items: former types and names joined, changes of whole rows shown
CREATE OR REPLACE VIEW "shop"."public_items" AS
SELECT
  "cdc_source",
  "cdc_position",
  "cdc_table_name",
  "cdc_key",
  "cdc_event",
  CASE WHEN "cdc_left" IS NULL THEN "cdc_changes" ELSE
    '{' || substr(CASE WHEN ("cdc_whole" = 1 OR "id" IS NOT NULL) THEN ', "id": ' || "cdc_left" || COALESCE(CAST("id" AS VARCHAR(64)), 'null') || "cdc_right" ELSE '' END
      || CASE WHEN ("cdc_whole" = 1 OR "paid" IS NOT NULL) THEN ', "paid": ' || "cdc_left" || COALESCE(CASE WHEN "paid" THEN 'true' WHEN NOT "paid" THEN 'false' END, 'null') || "cdc_right" ELSE '' END
      || CASE WHEN ("cdc_whole" = 1 OR "share" IS NOT NULL) THEN ', "share": ' || "cdc_left" || COALESCE(CASE WHEN "share" = 'NaN'::FLOAT8 THEN '"NaN"' WHEN ABS("share") = 'Infinity'::FLOAT8 THEN CASE WHEN "share" > 0 THEN '"Infinity"' ELSE '"-Infinity"' END ELSE CAST("share" AS VARCHAR(64)) END, 'null') || "cdc_right" ELSE '' END
      || CASE WHEN ("cdc_whole" = 1 OR "price" IS NOT NULL OR "price__2" IS NOT NULL) THEN ', "price": ' || "cdc_left" || COALESCE(COALESCE('"' || CAST("price" AS VARCHAR(64)) || '"', JSON_SERIALIZE(CAST(NULLIF(JSON_EXTRACT_PATH_TEXT("cdc_exact", 'price', TRUE), '') AS SUPER))), JSON_SERIALIZE(CAST("price__2" AS SUPER)), 'null') || "cdc_right" ELSE '' END
      || CASE WHEN ("cdc_whole" = 1 OR "photo" IS NOT NULL) THEN ', "photo": ' || "cdc_left" || COALESCE('"' || FROM_VARBYTE("photo", 'base64') || '"', 'null') || "cdc_right" ELSE '' END
      || CASE WHEN ("cdc_whole" = 1 OR "due" IS NOT NULL) THEN ', "due": ' || "cdc_left" || COALESCE(COALESCE('"' || TO_CHAR("due", 'YYYY-MM-DD') || '"', JSON_SERIALIZE(CAST(NULLIF(JSON_EXTRACT_PATH_TEXT("cdc_exact", 'due', TRUE), '') AS SUPER))), 'null') || "cdc_right" ELSE '' END
      || CASE WHEN ("cdc_whole" = 1 OR "at" IS NOT NULL) THEN ', "at": ' || "cdc_left" || COALESCE(COALESCE('"' || REGEXP_REPLACE(TO_CHAR("at", 'YYYY-MM-DD"T"HH24:MI:SS.US'), '\\.?0*$', '') || 'Z' || '"', JSON_SERIALIZE(CAST(NULLIF(JSON_EXTRACT_PATH_TEXT("cdc_exact", 'at', TRUE), '') AS SUPER))), 'null') || "cdc_right" ELSE '' END
      || CASE WHEN ("cdc_whole" = 1 OR "it_s__" IS NOT NULL) AND ("cdc_schema_version" = 2) THEN ', "it''s \\"ü\\"": ' || "cdc_left" || COALESCE(JSON_SERIALIZE(CAST("it_s__" AS SUPER)), 'null') || "cdc_right" ELSE '' END
      || CASE WHEN ("cdc_whole" = 1 OR "doc" IS NOT NULL) THEN ', "doc": ' || "cdc_left" || COALESCE(CASE WHEN "doc" = 'null' THEN '{"$json": null}' ELSE "doc" END, 'null') || "cdc_right" ELSE '' END
      || CASE WHEN ("cdc_whole" = 1 OR "count" IS NOT NULL OR "count__2" IS NOT NULL) AND ("cdc_schema_version" >= 2) THEN ', "count": ' || "cdc_left" || COALESCE(CAST("count" AS VARCHAR(64)), CAST("count__2" AS VARCHAR(64)), 'null') || "cdc_right" ELSE '' END
      || CASE WHEN ("cdc_whole" = 1 OR "text" IS NOT NULL) THEN ', "text": ' || "cdc_left" || COALESCE(JSON_SERIALIZE(CAST("text" AS SUPER)), 'null') || "cdc_right" ELSE '' END
      || CASE WHEN ("cdc_whole" = 1 OR "body" IS NOT NULL) AND ("cdc_schema_version" >= 2) THEN ', "body": ' || "cdc_left" || COALESCE(JSON_SERIALIZE(CAST("body" AS SUPER)), 'null') || "cdc_right" ELSE '' END, 3) || '}' END AS "cdc_changes",
  "cdc_before_known",
  "cdc_committed_at",
  "cdc_schema_version",
  "cdc_exact",
  "id",
  "paid",
  "share",
  COALESCE(CAST("price" AS VARCHAR(64)), "price__2") AS "price",
  "photo",
  "due",
  "at",
  "it_s__",
  "doc",
  COALESCE(CAST("count" AS INTEGER), "count__2") AS "count",
  COALESCE(CASE WHEN ("cdc_schema_version" = 1) THEN "text" END, "body") AS "body",
  CASE WHEN ("cdc_schema_version" >= 2) THEN "text" END AS "text"
FROM (
  SELECT *,
    CASE WHEN "cdc_changes" IS NOT NULL THEN NULL WHEN "cdc_event" IN ('created', 'snapshot') THEN '[null, ' WHEN "cdc_event" = 'deleted' THEN '[' END AS "cdc_left",
    CASE WHEN "cdc_event" = 'deleted' THEN ', null]' ELSE ']' END AS "cdc_right",
    CASE WHEN "cdc_event" = 'deleted' AND NOT "cdc_before_known" THEN 0 ELSE 1 END AS "cdc_whole"
  FROM "shop_lake"."lake__public_items") AS "sides"
WITH NO SCHEMA BINDING;

-- a view is replaced only by one with the same columns
DROP VIEW IF EXISTS "shop"."odd_schema_a_b__7f818cea";

-- Odd Schema."a.b": former types and names joined, changes of whole rows shown
CREATE OR REPLACE VIEW "shop"."odd_schema_a_b__7f818cea" AS
SELECT
  "cdc_source",
  "cdc_position",
  "cdc_table_name",
  "cdc_key",
  "cdc_event",
  "cdc_changes",
  "cdc_before_known",
  "cdc_committed_at",
  "cdc_schema_version",
  "cdc_exact"
FROM "shop_lake"."lake__odd_schema_a_b__7f818cea"
WITH NO SCHEMA BINDING;

-- a view is replaced only by one with the same columns
DROP VIEW IF EXISTS "shop"."versions";

-- every version of every table
CREATE OR REPLACE VIEW "shop"."versions" AS
SELECT "cdc_source" AS "source", "cdc_position" AS "position", "cdc_table_name" AS "table_name", "cdc_key" AS "key", "cdc_event" AS "event", "cdc_changes" AS "changes", "cdc_before_known" AS "before_known", "cdc_committed_at" AS "committed_at", "cdc_schema_version" AS "schema_version" FROM "shop"."public_items"
UNION ALL
SELECT "cdc_source" AS "source", "cdc_position" AS "position", "cdc_table_name" AS "table_name", "cdc_key" AS "key", "cdc_event" AS "event", "cdc_changes" AS "changes", "cdc_before_known" AS "before_known", "cdc_committed_at" AS "committed_at", "cdc_schema_version" AS "schema_version" FROM "shop"."odd_schema_a_b__7f818cea"
WITH NO SCHEMA BINDING;

-- public.items inside, for those who load
CREATE TABLE IF NOT EXISTS "shop"."loaded__public_items" (
  "cdc_source" VARCHAR(65535),
  "cdc_position" VARCHAR(65535),
  "cdc_table_name" VARCHAR(65535),
  "cdc_key" VARCHAR(65535),
  "cdc_event" VARCHAR(65535),
  "cdc_changes" VARCHAR(65535),
  "cdc_before_known" BOOLEAN,
  "cdc_committed_at" TIMESTAMP,
  "cdc_schema_version" INTEGER,
  "cdc_exact" VARCHAR(65535),
  "id" BIGINT,
  "paid" BOOLEAN,
  "share" DOUBLE PRECISION,
  "price" DECIMAL(10, 2),
  "photo" VARBYTE(1024000),
  "due" DATE,
  "at" TIMESTAMP,
  "it_s__" VARCHAR(65535),
  "doc" VARCHAR(65535),
  "price__2" VARCHAR(65535),
  "count" SMALLINT,
  "count__2" INTEGER,
  "text" VARCHAR(65535),
  "body" VARCHAR(65535))
SORTKEY ("cdc_committed_at");

-- COPY asks that every file has all columns, and this table's shape has changed: what is not yet there comes by the external table. Drop the copy when there are new columns
INSERT INTO "shop"."loaded__public_items" ("cdc_source", "cdc_position", "cdc_table_name", "cdc_key", "cdc_event", "cdc_changes", "cdc_before_known", "cdc_committed_at", "cdc_schema_version", "cdc_exact", "id", "paid", "share", "price", "photo", "due", "at", "it_s__", "doc", "price__2", "count", "count__2", "text", "body")
SELECT "cdc_source", "cdc_position", "cdc_table_name", "cdc_key", "cdc_event", "cdc_changes", "cdc_before_known", "cdc_committed_at", "cdc_schema_version", "cdc_exact", "id", "paid", "share", "price", "photo", "due", "at", "it_s__", "doc", "price__2", "count", "count__2", "text", "body"
FROM "shop_lake"."lake__public_items" AS lake
WHERE NOT EXISTS (SELECT 1 FROM "shop"."loaded__public_items" AS known WHERE known."cdc_position" = lake."cdc_position");

-- Odd Schema."a.b" inside, for those who load
CREATE TABLE IF NOT EXISTS "shop"."loaded__odd_schema_a_b__7f818cea" (
  "cdc_source" VARCHAR(65535),
  "cdc_position" VARCHAR(65535),
  "cdc_table_name" VARCHAR(65535),
  "cdc_key" VARCHAR(65535),
  "cdc_event" VARCHAR(65535),
  "cdc_changes" VARCHAR(65535),
  "cdc_changed" SUPER,
  "cdc_before_known" BOOLEAN,
  "cdc_committed_at" TIMESTAMP,
  "cdc_schema_version" INTEGER,
  "cdc_exact" VARCHAR(65535))
SORTKEY ("cdc_committed_at");

-- once; `JOB CREATE name AUTO ON` at its end loads each later file by itself. COPY asks that every file has all columns: print this anew when the table's shape changed
COPY "shop"."loaded__odd_schema_a_b__7f818cea"
FROM 's3://acme-audit/shop/Odd-20Schema.-22a.b-22/data/'
IAM_ROLE default
FORMAT AS PARQUET;
