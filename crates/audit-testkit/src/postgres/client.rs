//! Clients of a cluster: addresses, SQL through `psql`, sessions through `tokio_postgres`.

use std::process::Command;

use anyhow::Result;
use tokio_postgres::{Client, NoTls};

use super::Postgres;
use crate::os::unique;
use audit_install::{client_program, run_with_input};

/// Opens a session. A task of the current runtime drives its connection, which ends with the client.
pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap_or_else(|error| {
        panic!("cannot connect: {error}: {:?}", std::error::Error::source(&error).map(ToString::to_string))
    });
    // It ends with an error if a test kills the server.
    tokio::spawn(async { drop(connection.await) });
    client
}

impl Postgres {
    /// Returns `postgres://postgres@127.0.0.1:PORT/DATABASE`.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port())
    }

    /// Returns the database's address through the Unix socket.
    pub fn socket_url(&self, database: &str) -> String {
        let folder = self.socket_dir().replace('/', "%2F");
        format!("postgres://postgres@{folder}:{}/{database}", self.port())
    }

    pub async fn client(&self, database: &str) -> Client {
        connect(&self.url(database)).await
    }

    /// Makes a database and returns its address.
    pub fn create_database(&self, name: &str) -> String {
        self.execute("postgres", &format!("CREATE DATABASE {name}"));
        self.url(name)
    }

    /// Makes a database with a unique name and returns `(name, url)`.
    pub fn new_database(&self) -> (String, String) {
        let name = unique("db");
        let url = self.create_database(&name);
        (name, url)
    }

    /// Runs statements one by one through `psql` and returns what they printed: rows as lines, columns separated
    /// by `|`. The first error ends them, and the test fails.
    #[track_caller]
    pub fn execute(&self, database: &str, statements: &str) -> String {
        self.try_execute(database, statements).unwrap_or_else(|error| panic!("{error:#}"))
    }

    pub fn try_execute(&self, database: &str, statements: &str) -> Result<String> {
        psql(&self.url(database), statements)
    }
}

pub(super) fn psql(url: &str, statements: &str) -> Result<String> {
    let mut command = Command::new(client_program("psql"));
    command.args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-d", url]);
    // A server that is paused accepts connections but does not answer.
    command.env_remove("PGOPTIONS").env("PGCONNECT_TIMEOUT", "60");
    run_with_input(&mut command, statements)
}
