//! A prepared data folder: `initdb` takes a second or two, a copy of its result only a twentieth of that.

use std::path::{Path, PathBuf};
use std::process::Command;

use audit_install::{as_server_user, give_to_server_user, lock, remove, run, servers_dir};

/// Makes a new cluster of this major in `data`.
pub(super) fn copy(major: u16, bin: &Path, data: &Path) {
    let template = template(major, bin);
    run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(&template).arg(data)).expect("a copy of the template");
}

/// Returns the cluster from which others are copied. The first call makes it. Its name contains the server's exact
/// version, because the distribution may update the server.
fn template(major: u16, bin: &Path) -> PathBuf {
    let version = run(as_server_user(bin.join("postgres")).arg("--version")).expect("the server's version");
    let version: String =
        version.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
    let template = servers_dir().join(format!("template-{major}-{version}"));
    let _lock = lock("template").expect("the lock of the template");
    if !template.exists() {
        make(bin, &template);
    }
    template
}

fn make(bin: &Path, template: &Path) {
    // It is made in a temporary folder, because the server's user may not write into the cache.
    let folder = tempfile::Builder::new().prefix("cdc-audit-initdb-").tempdir().expect("a temporary folder");
    give_to_server_user(folder.path()).expect("chown");
    let data = folder.path().join("data");
    let options = ["-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"];
    run(as_server_user(bin.join("initdb")).args(options).arg(&data)).expect("initdb");
    let unfinished = template.with_extension("unfinished");
    remove(&unfinished).expect("an unfinished template goes");
    run(Command::new("cp").arg("-a").arg(&data).arg(&unfinished)).expect("the template in the cache");
    std::fs::rename(&unfinished, template).expect("the template in its place");
}
