//! The workspace's folders, and calls of cargo from inside cargo.

use std::env;
use std::path::PathBuf;
use std::process::Command;

/// The feature that compiles the fault points, which tests arm.
pub const FAULT_POINTS: &str = "cdc-audit/fault-points";

/// The selection of packages and features for every build except that of benchmarks, so that nothing is compiled twice.
pub const SELECTION: [&str; 3] = ["--workspace", "--features", FAULT_POINTS];

/// Returns the folder of the workspace's `Cargo.toml`.
pub fn root() -> PathBuf {
    // Read at run time, not at compile time, because a build in a shared folder may be that of another clone.
    let here = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
    here.ancestors().nth(2).unwrap_or(&here).to_owned()
}

/// Returns the folder of builds: the environment's, or else cargo's own.
pub fn target_dir() -> PathBuf {
    root().join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// Makes a call of cargo in the workspace, with this folder for builds.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root()).env("CARGO_TARGET_DIR", target_dir());
    // Variables of the outer cargo about this package are not true of others.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    command
}
