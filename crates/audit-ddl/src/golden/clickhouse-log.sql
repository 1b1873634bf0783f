-- what belongs together
CREATE DATABASE IF NOT EXISTS `shop`;

-- public.items by its Delta log
CREATE OR REPLACE VIEW `shop`.`lake__public_items` AS
SELECT `cdc_source`, `cdc_position`, `cdc_table_name`, `cdc_key`, `cdc_event`, `cdc_changes`, `cdc_changed`, `cdc_before_known`, `cdc_committed_at`, `cdc_schema_version`, `cdc_exact`, `id`, `paid`, `share`, `price`, `photo`, `due`, `at`, `it_s__`, `doc`, `price__2`, `count`, `count__2`, `text`, `body`, `year`, `month`, `day`
FROM deltaLakeLocal('/var/lib/cdc-audit/lake/public.items');

-- Odd Schema."a.b" by its Delta log
CREATE OR REPLACE VIEW `shop`.`lake__odd_schema_a_b__7f818cea` AS
SELECT `cdc_source`, `cdc_position`, `cdc_table_name`, `cdc_key`, `cdc_event`, `cdc_changes`, `cdc_changed`, `cdc_before_known`, `cdc_committed_at`, `cdc_schema_version`, `cdc_exact`, `year`, `month`, `day`
FROM deltaLakeLocal('/var/lib/cdc-audit/lake/Odd-20Schema.-22a.b-22');

-- public.items: former types and names joined, changes of whole rows shown
CREATE OR REPLACE VIEW `shop`.`public_items` AS
SELECT
  `cdc_source`,
  `cdc_position`,
  `cdc_table_name`,
  `cdc_key`,
  `cdc_event`,
  CASE WHEN `sides`.`cdc_left` IS NULL THEN `sides`.`cdc_changes` ELSE
    '{' || substr(concat(
      CASE WHEN (`sides`.`cdc_whole` = 1 OR `sides`.`id` IS NOT NULL) THEN ', "id": ' || `sides`.`cdc_left` || COALESCE(toString(`sides`.`id`), 'null') || `sides`.`cdc_right` ELSE '' END,
      CASE WHEN (`sides`.`cdc_whole` = 1 OR `sides`.`paid` IS NOT NULL) THEN ', "paid": ' || `sides`.`cdc_left` || COALESCE(CASE WHEN `sides`.`paid` THEN 'true' WHEN NOT `sides`.`paid` THEN 'false' END, 'null') || `sides`.`cdc_right` ELSE '' END,
      CASE WHEN (`sides`.`cdc_whole` = 1 OR `sides`.`share` IS NOT NULL) THEN ', "share": ' || `sides`.`cdc_left` || COALESCE(CASE WHEN isNaN(`sides`.`share`) THEN '"NaN"' WHEN isInfinite(`sides`.`share`) THEN CASE WHEN `sides`.`share` > 0 THEN '"Infinity"' ELSE '"-Infinity"' END ELSE toString(`sides`.`share`) END, 'null') || `sides`.`cdc_right` ELSE '' END,
      CASE WHEN (`sides`.`cdc_whole` = 1 OR `sides`.`price` IS NOT NULL OR `sides`.`price__2` IS NOT NULL) THEN ', "price": ' || `sides`.`cdc_left` || COALESCE(COALESCE('"' || toDecimalString(`sides`.`price`, 2) || '"', nullIf(JSONExtractRaw(ifNull(`sides`.`cdc_exact`, ''), 'price'), '')), toJSONString(`sides`.`price__2`), 'null') || `sides`.`cdc_right` ELSE '' END,
      CASE WHEN (`sides`.`cdc_whole` = 1 OR `sides`.`photo` IS NOT NULL) THEN ', "photo": ' || `sides`.`cdc_left` || COALESCE('"' || base64Encode(`sides`.`photo`) || '"', 'null') || `sides`.`cdc_right` ELSE '' END,
      CASE WHEN (`sides`.`cdc_whole` = 1 OR `sides`.`due` IS NOT NULL) THEN ', "due": ' || `sides`.`cdc_left` || COALESCE(COALESCE('"' || toString(`sides`.`due`) || '"', nullIf(JSONExtractRaw(ifNull(`sides`.`cdc_exact`, ''), 'due'), '')), 'null') || `sides`.`cdc_right` ELSE '' END,
      CASE WHEN (`sides`.`cdc_whole` = 1 OR `sides`.`at` IS NOT NULL) THEN ', "at": ' || `sides`.`cdc_left` || COALESCE(COALESCE('"' || replaceRegexpOne(formatDateTime(`sides`.`at`, '%Y-%m-%dT%H:%i:%S.%f', 'UTC'), '\\.?0*$', '') || 'Z' || '"', nullIf(JSONExtractRaw(ifNull(`sides`.`cdc_exact`, ''), 'at'), '')), 'null') || `sides`.`cdc_right` ELSE '' END,
      CASE WHEN (`sides`.`cdc_whole` = 1 OR `sides`.`it_s__` IS NOT NULL) AND (`sides`.`cdc_schema_version` = 2) THEN ', "it\'s \\"ü\\"": ' || `sides`.`cdc_left` || COALESCE(toJSONString(`sides`.`it_s__`), 'null') || `sides`.`cdc_right` ELSE '' END,
      CASE WHEN (`sides`.`cdc_whole` = 1 OR `sides`.`doc` IS NOT NULL) THEN ', "doc": ' || `sides`.`cdc_left` || COALESCE(CASE WHEN `sides`.`doc` = 'null' THEN '{"$json": null}' ELSE `sides`.`doc` END, 'null') || `sides`.`cdc_right` ELSE '' END,
      CASE WHEN (`sides`.`cdc_whole` = 1 OR `sides`.`count` IS NOT NULL OR `sides`.`count__2` IS NOT NULL) AND (`sides`.`cdc_schema_version` >= 2) THEN ', "count": ' || `sides`.`cdc_left` || COALESCE(toString(`sides`.`count`), toString(`sides`.`count__2`), 'null') || `sides`.`cdc_right` ELSE '' END,
      CASE WHEN (`sides`.`cdc_whole` = 1 OR `sides`.`text` IS NOT NULL) THEN ', "text": ' || `sides`.`cdc_left` || COALESCE(toJSONString(`sides`.`text`), 'null') || `sides`.`cdc_right` ELSE '' END,
      CASE WHEN (`sides`.`cdc_whole` = 1 OR `sides`.`body` IS NOT NULL) AND (`sides`.`cdc_schema_version` >= 2) THEN ', "body": ' || `sides`.`cdc_left` || COALESCE(toJSONString(`sides`.`body`), 'null') || `sides`.`cdc_right` ELSE '' END), 3) || '}' END AS `cdc_changes`,
  `cdc_changed`,
  `cdc_before_known`,
  `cdc_committed_at`,
  `cdc_schema_version`,
  `cdc_exact`,
  `id`,
  `paid`,
  `share`,
  COALESCE(toDecimalString(`sides`.`price`, 2), `sides`.`price__2`) AS `price`,
  `photo`,
  `due`,
  `at`,
  `it_s__`,
  `doc`,
  COALESCE(CAST(`sides`.`count`, 'Nullable(Int32)'), `sides`.`count__2`) AS `count`,
  COALESCE(CASE WHEN (`sides`.`cdc_schema_version` = 1) THEN `sides`.`text` END, `sides`.`body`) AS `body`,
  CASE WHEN (`sides`.`cdc_schema_version` >= 2) THEN `sides`.`text` END AS `text`,
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
