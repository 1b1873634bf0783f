//! Installs a pooler, drivers and frameworks, which tests of applications use.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::run;
use crate::{into_servers, jars, lock, npm, servers_dir};

/// PostgreSQL's driver for Node.
const NODE_PG: (&str, &str) = ("pg", "8.23.1");

/// Spring's JDBC with PostgreSQL's driver.
const SPRING: (&str, &str) = ("spring-jdbc-6.2.1", include_str!("../spring/pom.xml"));

/// PostgreSQL's driver for Go.
const PGX: (&str, &str) = ("github.com/jackc/pgx/v5", "v5.12.0");

/// Finds the pooler's program.
///
/// # Errors
/// Names the command that installs it if it is missing.
pub fn pgbouncer() -> Result<PathBuf> {
    let places = ["/usr/sbin/pgbouncer", "/usr/local/bin/pgbouncer", "/usr/bin/pgbouncer"];
    let found = places.iter().map(PathBuf::from).find(|path| path.exists());
    found.context("PgBouncer is not installed; run `cargo xtask servers install`")
}

/// Finds the folder `node_modules` that contains `pg`.
///
/// # Errors
/// Names the command that installs it if it is missing.
pub fn node_pg() -> Result<PathBuf> {
    let folder = servers_dir().join(format!("node-pg-{}/node_modules", NODE_PG.1));
    folder.join("pg").exists().then_some(folder).context("pg is not installed; run `cargo xtask servers install`")
}

/// Installs PostgreSQL's driver for Node if it is missing. Needs npm.
pub fn install_node_pg() -> Result<()> {
    let _lock = lock("install")?;
    if node_pg().is_err() {
        let (package, version) = NODE_PG;
        into_servers(&format!("node-pg-{version}"), |folder| npm(folder, &format!("{package}@{version}")))?;
    }
    Ok(())
}

/// Finds the folder of Spring's jars.
///
/// # Errors
/// Names the command that installs them if they are missing.
pub fn spring() -> Result<PathBuf> {
    let folder = servers_dir().join(SPRING.0);
    folder.exists().then_some(folder).context("Spring is not installed; run `cargo xtask servers install`")
}

/// Installs Spring's jars if they are missing. Needs Maven.
pub fn install_spring() -> Result<()> {
    let _lock = lock("install")?;
    if spring().is_err() {
        into_servers(SPRING.0, |folder| jars(folder, SPRING.1))?;
    }
    Ok(())
}

/// Finds the folder with `go.mod` and `go.sum` of a module `example.test/app` that uses pgx. The modules that they name
/// are in Go's cache.
///
/// # Errors
/// Names the command that installs it if it is missing.
pub fn pgx() -> Result<PathBuf> {
    let folder = servers_dir().join(format!("pgx-{}", PGX.1));
    folder.exists().then_some(folder).context("pgx is not installed; run `cargo xtask servers install`")
}

/// Returns the Go compiler: the one that was installed for the tests, or else the system's.
pub fn go() -> PathBuf {
    let own = crate::python().with_file_name("go");
    if own.exists() { own } else { "go".into() }
}

/// Fetches pgx if it is missing. `go` is the Go compiler.
pub fn install_pgx(go: &Path) -> Result<()> {
    let _lock = lock("install")?;
    if pgx().is_ok() {
        return Ok(());
    }
    let (module, version) = PGX;
    into_servers(&format!("pgx-{version}"), |folder| {
        let go = |arguments: &[&str]| run(Command::new(go).args(arguments).current_dir(folder));
        go(&["mod", "init", "example.test/app"])?;
        fs::write(
            folder.join("main.go"),
            format!("package main\n\nimport _ \"{module}/pgxpool\"\n\nfunc main() {{}}\n"),
        )?;
        go(&["get", &format!("{module}@{version}")])?;
        go(&["mod", "tidy"])?;
        go(&["build", "-o", "warm"]).map(drop)
    })
}
