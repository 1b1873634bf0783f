-- in the bucket's location: add OPTIONS (location = '...') where the default is another
CREATE SCHEMA IF NOT EXISTS `shop`;

-- public.items by its files; partitions are found by the names of the folders
CREATE OR REPLACE EXTERNAL TABLE `shop`.`lake__public_items` (
  `cdc_source` STRING,
  `cdc_position` STRING,
  `cdc_table_name` STRING,
  `cdc_key` STRING,
  `cdc_event` STRING,
  `cdc_changes` STRING,
  `cdc_changed` ARRAY<STRING>,
  `cdc_before_known` BOOL,
  `cdc_committed_at` TIMESTAMP,
  `cdc_schema_version` INT64,
  `cdc_exact` STRING,
  `id` INT64,
  `paid` BOOL,
  `share` FLOAT64,
  `price` NUMERIC(10, 2),
  `photo` BYTES,
  `due` DATE,
  `at` TIMESTAMP,
  `it_s__` STRING,
  `doc` STRING,
  `price__2` STRING,
  `count` INT64,
  `count__2` INT64,
  `text` STRING,
  `body` STRING)
WITH PARTITION COLUMNS (`year` INT64, `month` INT64, `day` INT64)
OPTIONS (
  format = 'PARQUET',
  uris = ['gs://acme-audit/shop/public.items/data/*'],
  hive_partition_uri_prefix = 'gs://acme-audit/shop/public.items/data',
  enable_list_inference = TRUE);

-- Odd Schema."a.b" by its files; partitions are found by the names of the folders
CREATE OR REPLACE EXTERNAL TABLE `shop`.`lake__odd_schema_a_b__7f818cea` (
  `cdc_source` STRING,
  `cdc_position` STRING,
  `cdc_table_name` STRING,
  `cdc_key` STRING,
  `cdc_event` STRING,
  `cdc_changes` STRING,
  `cdc_changed` ARRAY<STRING>,
  `cdc_before_known` BOOL,
  `cdc_committed_at` TIMESTAMP,
  `cdc_schema_version` INT64,
  `cdc_exact` STRING)
WITH PARTITION COLUMNS (`year` INT64, `month` INT64, `day` INT64)
OPTIONS (
  format = 'PARQUET',
  uris = ['gs://acme-audit/shop/Odd-20Schema.-22a.b-22/data/*'],
  hive_partition_uri_prefix = 'gs://acme-audit/shop/Odd-20Schema.-22a.b-22/data',
  enable_list_inference = TRUE);

-- public.items: former types and names joined, changes of whole rows shown
CREATE OR REPLACE VIEW `shop`.`public_items` AS
SELECT
  `cdc_source`,
  `cdc_position`,
  `cdc_table_name`,
  `cdc_key`,
  `cdc_event`,
  CASE WHEN `cdc_left` IS NULL THEN `cdc_changes` ELSE
    '{' || substr(concat(
      CASE WHEN (`cdc_whole` = 1 OR `id` IS NOT NULL) THEN ', "id": ' || `cdc_left` || COALESCE(CAST(`id` AS STRING), 'null') || `cdc_right` ELSE '' END,
      CASE WHEN (`cdc_whole` = 1 OR `paid` IS NOT NULL) THEN ', "paid": ' || `cdc_left` || COALESCE(CASE WHEN `paid` THEN 'true' WHEN NOT `paid` THEN 'false' END, 'null') || `cdc_right` ELSE '' END,
      CASE WHEN (`cdc_whole` = 1 OR `share` IS NOT NULL) THEN ', "share": ' || `cdc_left` || COALESCE(CASE WHEN IS_NAN(`share`) THEN '"NaN"' WHEN IS_INF(`share`) THEN CASE WHEN `share` > 0 THEN '"Infinity"' ELSE '"-Infinity"' END ELSE CAST(`share` AS STRING) END, 'null') || `cdc_right` ELSE '' END,
      CASE WHEN (`cdc_whole` = 1 OR `price` IS NOT NULL OR `price__2` IS NOT NULL) THEN ', "price": ' || `cdc_left` || COALESCE(COALESCE('"' || FORMAT('%.2f', `price`) || '"', JSON_QUERY(`cdc_exact`, '$."price"')), IF(`price__2` IS NULL, NULL, TO_JSON_STRING(`price__2`)), 'null') || `cdc_right` ELSE '' END,
      CASE WHEN (`cdc_whole` = 1 OR `photo` IS NOT NULL) THEN ', "photo": ' || `cdc_left` || COALESCE('"' || to_base64(`photo`) || '"', 'null') || `cdc_right` ELSE '' END,
      CASE WHEN (`cdc_whole` = 1 OR `due` IS NOT NULL) THEN ', "due": ' || `cdc_left` || COALESCE(COALESCE('"' || CAST(`due` AS STRING) || '"', JSON_QUERY(`cdc_exact`, '$."due"')), 'null') || `cdc_right` ELSE '' END,
      CASE WHEN (`cdc_whole` = 1 OR `at` IS NOT NULL) THEN ', "at": ' || `cdc_left` || COALESCE(COALESCE('"' || FORMAT_TIMESTAMP('%E4Y-%m-%dT%H:%M:%E*S', `at`, 'UTC') || 'Z' || '"', JSON_QUERY(`cdc_exact`, '$."at"')), 'null') || `cdc_right` ELSE '' END,
      CASE WHEN (`cdc_whole` = 1 OR `it_s__` IS NOT NULL) AND (`cdc_schema_version` = 2) THEN ', "it\'s \\"ü\\"": ' || `cdc_left` || COALESCE(IF(`it_s__` IS NULL, NULL, TO_JSON_STRING(`it_s__`)), 'null') || `cdc_right` ELSE '' END,
      CASE WHEN (`cdc_whole` = 1 OR `doc` IS NOT NULL) THEN ', "doc": ' || `cdc_left` || COALESCE(CASE WHEN `doc` = 'null' THEN '{"$json": null}' ELSE `doc` END, 'null') || `cdc_right` ELSE '' END,
      CASE WHEN (`cdc_whole` = 1 OR `count` IS NOT NULL OR `count__2` IS NOT NULL) AND (`cdc_schema_version` >= 2) THEN ', "count": ' || `cdc_left` || COALESCE(CAST(`count` AS STRING), CAST(`count__2` AS STRING), 'null') || `cdc_right` ELSE '' END,
      CASE WHEN (`cdc_whole` = 1 OR `text` IS NOT NULL) THEN ', "text": ' || `cdc_left` || COALESCE(IF(`text` IS NULL, NULL, TO_JSON_STRING(`text`)), 'null') || `cdc_right` ELSE '' END,
      CASE WHEN (`cdc_whole` = 1 OR `body` IS NOT NULL) AND (`cdc_schema_version` >= 2) THEN ', "body": ' || `cdc_left` || COALESCE(IF(`body` IS NULL, NULL, TO_JSON_STRING(`body`)), 'null') || `cdc_right` ELSE '' END), 3) || '}' END AS `cdc_changes`,
  `cdc_changed`,
  `cdc_before_known`,
  `cdc_committed_at`,
  `cdc_schema_version`,
  `cdc_exact`,
  `id`,
  `paid`,
  `share`,
  COALESCE(FORMAT('%.2f', `price`), `price__2`) AS `price`,
  `photo`,
  `due`,
  `at`,
  `it_s__`,
  `doc`,
  COALESCE(CAST(`count` AS INT64), `count__2`) AS `count`,
  COALESCE(CASE WHEN (`cdc_schema_version` = 1) THEN `text` END, `body`) AS `body`,
  CASE WHEN (`cdc_schema_version` >= 2) THEN `text` END AS `text`,
  `year`,
  `month`,
  `day`
FROM (
  SELECT *,
    CASE WHEN `cdc_changes` IS NOT NULL THEN NULL WHEN `cdc_event` IN ('created', 'snapshot') THEN '[null, ' WHEN `cdc_event` = 'deleted' THEN '[' END AS `cdc_left`,
    CASE WHEN `cdc_event` = 'deleted' THEN ', null]' ELSE ']' END AS `cdc_right`,
    CASE WHEN `cdc_event` = 'deleted' AND NOT `cdc_before_known` THEN 0 ELSE 1 END AS `cdc_whole`
  FROM `shop`.`lake__public_items`) AS `sides`;

-- Odd Schema."a.b": former types and names joined, changes of whole rows shown
CREATE OR REPLACE VIEW `shop`.`odd_schema_a_b__7f818cea` AS
SELECT
  `cdc_source`,
  `cdc_position`,
  `cdc_table_name`,
  `cdc_key`,
  `cdc_event`,
  `cdc_changes`,
  `cdc_changed`,
  `cdc_before_known`,
  `cdc_committed_at`,
  `cdc_schema_version`,
  `cdc_exact`,
  `year`,
  `month`,
  `day`
FROM `shop`.`lake__odd_schema_a_b__7f818cea`;

-- every version of every table
CREATE OR REPLACE VIEW `shop`.`versions` AS
SELECT `cdc_source` AS `source`, `cdc_position` AS `position`, `cdc_table_name` AS `table_name`, `cdc_key` AS `key`, `cdc_event` AS `event`, `cdc_changes` AS `changes`, `cdc_changed` AS `changed`, `cdc_before_known` AS `before_known`, `cdc_committed_at` AS `committed_at`, `cdc_schema_version` AS `schema_version`, `year`, `month`, `day` FROM `shop`.`public_items`
UNION ALL
SELECT `cdc_source` AS `source`, `cdc_position` AS `position`, `cdc_table_name` AS `table_name`, `cdc_key` AS `key`, `cdc_event` AS `event`, `cdc_changes` AS `changes`, `cdc_changed` AS `changed`, `cdc_before_known` AS `before_known`, `cdc_committed_at` AS `committed_at`, `cdc_schema_version` AS `schema_version`, `year`, `month`, `day` FROM `shop`.`odd_schema_a_b__7f818cea`;
