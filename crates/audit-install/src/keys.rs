//! Installs key services: moto, which serves AWS KMS, and Vault's core with its transit engine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, iter};

use anyhow::{Context, Result};

use crate::process::run;
use crate::{into_servers, lock, servers_dir};

const MOTO: (&str, &str) = ("moto[server,kms]", "5.2.5");
const VAULT: &str = "1.21.1";
/// Sources of a small program around Vault's core. `go.mod` contains Vault's version too.
const VAULT_SOURCE: [(&str, &str); 2] =
    [("go.mod", include_str!("../vault/go.mod")), ("main.go", include_str!("../vault/main.go"))];

/// Finds the folder with moto's Python packages.
///
/// # Errors
/// Names the command that installs it if it is missing.
pub fn moto() -> Result<PathBuf> {
    let folder = servers_dir().join(format!("moto-{}", MOTO.1));
    folder.exists().then_some(folder).context("no AWS KMS is installed; run `cargo xtask test`")
}

/// Installs moto if it is missing. `python` must have pip.
pub fn install_moto(python: &Path) -> Result<()> {
    let _lock = lock("install")?;
    if moto().is_ok() {
        return Ok(());
    }
    let (package, version) = MOTO;
    into_servers(&format!("moto-{version}"), |folder| {
        let mut pip = Command::new(python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]).arg(folder);
        run(pip.arg(format!("{package}=={version}"))).map(drop)
    })
}

/// Finds the Vault server's program.
///
/// # Errors
/// Names the command that installs it if it is missing.
pub fn vault() -> Result<PathBuf> {
    let program = servers_dir().join(format!("vault-{VAULT}/vault-transit"));
    program.exists().then_some(program).context("no Vault is installed; run `cargo xtask test --all`")
}

/// Compiles Vault if it is missing, which takes some minutes and some GB of memory. `go` is the Go compiler.
pub fn install_vault(go: &Path) -> Result<()> {
    let _lock = lock("install")?;
    if vault().is_ok() {
        return Ok(());
    }
    into_servers(&format!("vault-{VAULT}"), |folder| {
        for (name, text) in VAULT_SOURCE {
            fs::write(folder.join(name), text)?;
        }
        let go = |arguments: &[&str]| run(Command::new(go).args(arguments).current_dir(folder)).map(drop);
        // Finds the indirect modules, which `go.mod` would otherwise have to list.
        go(&["mod", "tidy"])?;
        go(&["build", "-ldflags", "-s -w", "-o", "vault-transit", "."])
    })
}

/// Lists both services by name, each with its place or the error that says how to install it.
pub fn list() -> impl Iterator<Item = (&'static str, Result<PathBuf>)> {
    iter::once(("AWS KMS", moto())).chain(iter::once(("Vault", vault())))
}
