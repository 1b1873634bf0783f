//! Cleans up after a test process that was killed.
//!
//! `Drop` does not run for a process that is killed or aborts, nor for statics. A guard is a small shell that waits for
//! a pipe whose other end only the test process holds: when that process ends in any way, the shell reads the end of
//! the file and cleans up.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

pub(crate) struct Guard(Child);

impl Guard {
    /// Ends the server whose `postmaster.pid` is in `folder/data`, and removes the folder.
    pub(crate) fn over_cluster(folder: &Path) -> Guard {
        Guard::start(
            // A copy or a start that has begun continues for a moment without its parent.
            r#"sleep 1
            pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
            if [ -n "$pid" ]; then
                kill -CONT "$pid"; kill -QUIT "$pid"
                for i in $(seq 100); do kill -0 "$pid" || break; sleep 0.1; done
            fi
            rm -rf "$1""#,
            &[&folder.to_string_lossy()],
        )
    }

    /// Kills one process.
    pub(crate) fn over_process(pid: u32) -> Guard {
        Guard::start(r#"kill -KILL "$1""#, &[&pid.to_string()])
    }

    /// Kills one process, and removes its folder once it has ended: until then it may write there.
    pub(crate) fn over_process_in(pid: u32, folder: &Path) -> Guard {
        Guard::start(
            // Nobody may reap it: then it stays as a zombie, which has no files and no folder of its own any more.
            r#"kill -KILL "$1"
            for i in $(seq 600); do
                kill -0 "$1" && ! grep -q '^State:.Z' "/proc/$1/status" || break
                sleep 0.1
            done
            rm -rf "$2""#,
            &[&pid.to_string(), &folder.to_string_lossy()],
        )
    }

    fn start(cleaning: &str, arguments: &[&str]) -> Guard {
        let script = format!("trap '' INT TERM HUP; read -r line && exit 0\n{cleaning}");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script, "guard"]).args(arguments);
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Guard(shell.spawn().expect("sh starts"))
    }
}

/// Dismisses the guard: its owner is dropped normally and cleans up by itself.
impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(mut stdin) = self.0.stdin.take() {
            drop(stdin.write_all(b"done\n"));
        }
        drop(self.0.wait());
    }
}
