"""Does what DuckDB's own program does with a script on its standard input, as far as `cdc-audit sql` needs it: only the
package for Python can be installed for tests."""

import sys

sys.path.insert(0, "FOLDER")

import csv
import json
import pathlib
import shutil
import tempfile

import duckdb
import duckdb_extension_delta

assert sys.argv[1:] == ["-init", "/dev/null", "-batch", "-bail"], sys.argv
with tempfile.TemporaryDirectory() as extensions:
    connection = duckdb.connect(config={"extension_directory": extensions})
    version = connection.execute("SELECT library_version FROM pragma_version()").fetchone()[0]
    place = pathlib.Path(extensions, version, connection.execute("PRAGMA platform").fetchone()[0])
    place.mkdir(parents=True)
    shutil.copy(next(pathlib.Path(duckdb_extension_delta.__file__).parent.rglob("delta.duckdb_extension")), place)
    lines = sys.stdin.read().split("\n")
    mode = lines[0].removeprefix(".mode ")
    assert lines[1] == ".headers on"
    try:
        for statement in duckdb.extract_statements("\n".join(lines[2:])):
            if statement.query.strip() == "INSTALL delta;":
                continue
            answer = connection.execute(statement)
    except duckdb.Error as error:
        sys.exit(str(error))
    names = [column[0] for column in answer.description]
    rows = answer.fetchall()
    if mode == "jsonlines":
        for row in rows:
            print(json.dumps(dict(zip(names, row)), default=str))
    else:
        csv.writer(sys.stdout).writerows([names] + rows)
