"""Asks one table for a key and for a day in Spark, and prints how many files its scan read.

`skipping_spark.py TABLE KEY DAY JARS`
"""

import pathlib
import sys
import tempfile

from pyspark.sql import SparkSession

# Removed when the program ends.
WAREHOUSE = tempfile.TemporaryDirectory()

table, key, day, jars = sys.argv[1:]
year, month, day = (int(part) for part in day.split("-"))
builder = SparkSession.builder.master("local[2]").appName("cdc-audit")
for name, value in {
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.jars": ",".join(str(jar) for jar in pathlib.Path(jars).glob("*.jar")),
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.warehouse.dir": WAREHOUSE.name,
}.items():
    builder = builder.config(name, value)
spark = builder.getOrCreate()

WAYS = {
    "log_by_spark": spark.read.format("delta").load(table),
    "listing_by_spark": spark.read.parquet(f"{table}/data"),
}
QUESTIONS = {
    "key": f"cdc_key = '{key}'",
    "day": f"year = {year} AND month = {month} AND day = {day}",
}
for question, wanted in QUESTIONS.items():
    for name, versions in WAYS.items():
        asked = versions.where(wanted).select("cdc_position")
        asked.collect()
        scan = asked._jdf.queryExecution().executedPlan().collectLeaves().apply(0)
        files = scan.metrics().get("numFiles").get().value()
        print(f"{question}  {name:<17} {files} file{'s' if files > 1 else ''}")
