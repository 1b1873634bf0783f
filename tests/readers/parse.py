"""Parses statements for every engine in its dialect, and prints those that the parser knows by their first words only.

`parse.py FOLDER`: files `<engine>-<way>.sql`.
"""

import json
import logging
import pathlib
import re
import shlex
import sys

import sqlglot

DIALECTS = {"synapse": "tsql"}
# Not in the parser's grammar; the columns in it are parsed by themselves.
OPENROWSET = re.compile(r"OPENROWSET\(BULK '[^']*', FORMAT = '\w+'\) WITH \((.*?)\) AS \[lake\]", re.DOTALL)


def statements(engine, script):
    if engine != "synapse":
        yield script
        return
    for batch in script.split("\nGO\n"):
        yield OPENROWSET.sub("[files] AS [lake]", batch)
        for columns in OPENROWSET.findall(batch):
            yield f"CREATE TABLE [t] ({columns})"


def glue(script):
    """Shell commands, whose words are JSON."""
    count = 0
    for word in shlex.split(script, comments=True):
        if word.startswith("{"):
            json.loads(word)
            count += 1
    return count


logging.disable(logging.CRITICAL)
for file in sorted(pathlib.Path(sys.argv[1]).glob("*-*.sql")):
    engine, way = file.stem.split("-")
    script = file.read_text()
    if engine == "glue":
        print(f"{engine} {way}: {glue(script)} definitions")
        continue
    parsed, known = 0, []
    for text in statements(engine, script):
        for tree in sqlglot.parse(text, dialect=DIALECTS.get(engine, engine), error_level=sqlglot.ErrorLevel.RAISE):
            if isinstance(tree, sqlglot.exp.Command):
                known.append(re.sub(r"/\*.*?\*/ *", "", tree.sql()).split("\n")[0][:40])
            elif tree is not None:
                parsed += 1
    print(f"{engine} {way}: {parsed} parsed{''.join(chr(10) + '  by its first words: ' + words for words in known)}")
