import tempfile

from pyspark.sql import SparkSession

# Removed when the program ends.
WAREHOUSE = tempfile.TemporaryDirectory()


def session(jars):
    """Spark on this machine alone, with Delta, in UTC as the lake is."""
    builder = SparkSession.builder.master("local[2]").appName("cdc-audit")
    for key, value in {
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.memory": "1g",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.jars": ",".join(str(jar) for jar in pathlib.Path(jars).glob("*.jar")),
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.warehouse.dir": WAREHOUSE.name,
        "spark.sql.session.timeZone": "UTC",
    }.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def log_by_spark(table):
    return spark.read.format("delta").load(str(table)).toArrow()


def listing_by_spark(table):
    return spark.read.option("mergeSchema", "true").parquet(str(table / "data")).toArrow()


spark = session(sys.argv[-1])
