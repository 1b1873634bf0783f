//! Settings of the C library's allocator, which reads them from the environment when the program starts.
//!
//! What one thread allocates here others free: versions travel in megabytes from the stream to the sinks. Left alone, glibc keeps such
//! memory for the threads that had it, and with each large block that is freed raises the size from which it gives blocks back at once:
//! after five million rows 370 MiB were resident for 60 MiB in use, and more with each further row. With few arenas and a fixed size it
//! stays where it is. (mimalloc, on the same rows, took more than glibc left alone.)

use std::env;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

const SETTINGS: [(&str, &str); 2] = [("MALLOC_ARENA_MAX", "2"), ("MALLOC_MMAP_THRESHOLD_", "524288")];

/// Further ways in which an operator may have decided.
const TUNABLES: &str = "GLIBC_TUNABLES";

/// Starts the program anew under these settings, in the same process, unless the operator has made some. It returns where there is
/// nothing to set, and where that fails: then more memory is taken than need be.
pub fn settle() -> io::Result<()> {
    let decided = SETTINGS.iter().any(|(name, _)| env::var_os(name).is_some()) || env::var_os(TUNABLES).is_some();
    if decided || !cfg!(all(target_os = "linux", target_env = "gnu")) {
        return Ok(());
    }
    let mut arguments = env::args_os();
    let mut command = Command::new(env::current_exe()?);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    Err(command.args(arguments).envs(SETTINGS).exec())
}
