"""DuckDB with its reader of Delta logs: an extension that it downloads from elsewhere, but of an earlier release there is a package."""

import sys

sys.path.insert(0, sys.argv[-1])

import pathlib
import shutil
import tempfile

import duckdb
import duckdb_extension_delta

# Removed when the program ends.
EXTENSIONS = tempfile.TemporaryDirectory()


def connected():
    connection = duckdb.connect(config={"extension_directory": EXTENSIONS.name})
    version = connection.execute("SELECT library_version FROM pragma_version()").fetchone()[0]
    platform = connection.execute("PRAGMA platform").fetchone()[0]
    place = pathlib.Path(EXTENSIONS.name, version, platform)
    if not place.exists():
        place.mkdir(parents=True)
        package = pathlib.Path(duckdb_extension_delta.__file__).parent
        shutil.copy(next(package.rglob("delta.duckdb_extension")), place)
    connection.execute("SET enable_progress_bar = false")
    return connection


def log_by_duckdb(table):
    connection = connected()
    connection.execute("LOAD delta")
    return connection.execute(f"SELECT * FROM delta_scan('{table}')").to_arrow_table()


def duckdb_with_delta_runs(rounds, way):
    return in_duckdb(connected(), rounds)
