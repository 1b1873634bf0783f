//! The source's side against real servers, of every major that is installed.
//!
//! - `catalog`: what the catalog says is what the stream sends
//! - `slot`: states of a slot
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod catalog;
mod slot;

use std::process::{Child, Command, Stdio};

use audit_connect::PgEndpoint;
use audit_testkit::{Database, Postgres, install};
use tokio_postgres::Client;

/// The majors to try; 15 always.
fn majors() -> impl Iterator<Item = u16> {
    install::MAJORS.into_iter().filter(|&major| major == 15 || Postgres::installed(major))
}

/// A session as the program opens it.
async fn session(db: &Database) -> Client {
    open(&db.url).await
}

async fn open(url: &str) -> Client {
    audit_connect::connect(&PgEndpoint::new(url), "test").await.unwrap()
}

/// Another program that reads from a slot with `test_decoding`, until dropped.
struct Holding(Child);

fn hold(url: &str, slot: &str, application_name: &str) -> Holding {
    let mut command = Command::new(install::client_program("pg_recvlogical"));
    command.args(["-d", url, "--slot", slot, "--start", "-f", "-"]).env("PGAPPNAME", application_name);
    Holding(command.stdout(Stdio::null()).spawn().unwrap())
}

impl Drop for Holding {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
