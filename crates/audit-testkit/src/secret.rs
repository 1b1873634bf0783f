//! Files that hold secrets, with the access that the program requires: nobody except the owner may read them.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Writes a secret to a file.
pub fn write_secret(path: impl AsRef<Path>, secret: impl AsRef<[u8]>) {
    let open = File::options().write(true).create(true).truncate(true).mode(0o600).open(path);
    open.and_then(|mut file| file.write_all(secret.as_ref())).expect("a file for a secret");
}
