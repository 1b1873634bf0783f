"""DuckDB with its reader of Delta logs: an extension that it downloads from elsewhere, but of an earlier release there is a package."""

import sys

sys.path.insert(0, sys.argv[-1])

import pathlib
import shutil
import tempfile

import duckdb
import duckdb_extension_delta


def connected():
    folder = tempfile.mkdtemp()
    connection = duckdb.connect(config={"extension_directory": folder})
    version = connection.execute("SELECT library_version FROM pragma_version()").fetchone()[0]
    platform = connection.execute("PRAGMA platform").fetchone()[0]
    place = pathlib.Path(folder, version, platform)
    place.mkdir(parents=True)
    package = pathlib.Path(duckdb_extension_delta.__file__).parent
    shutil.copy(next(package.rglob("delta.duckdb_extension")), place)
    return connection


def log_by_duckdb(table):
    connection = connected()
    connection.execute("LOAD delta")
    return connection.execute(f"SELECT * FROM delta_scan('{table}')").to_arrow_table()


def duckdb_with_delta_runs(rounds, way):
    return in_duckdb(connected(), rounds)
