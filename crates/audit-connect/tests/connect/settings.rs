use audit_connect::{PINNED, PINNED_SINCE};
use audit_testkit::Postgres;

use crate::{ask, connect};

/// Defaults that a database or a role may have. All of them are wrong for us.
const ODD: &str = "\
    ALTER DATABASE odd SET DateStyle = 'SQL, DMY';
    ALTER DATABASE odd SET IntervalStyle = 'iso_8601';
    ALTER DATABASE odd SET TimeZone = 'Asia/Kolkata';
    ALTER DATABASE odd SET bytea_output = 'escape';
    ALTER DATABASE odd SET extra_float_digits = -5;
    ALTER DATABASE odd SET quote_all_identifiers = on;
    ALTER DATABASE odd SET statement_timeout = '1h';
    ALTER DATABASE odd SET idle_session_timeout = '1h';
    ALTER DATABASE odd SET default_transaction_read_only = on;
    ALTER DATABASE odd SET default_transaction_isolation = 'serializable';
    ALTER ROLE postgres IN DATABASE odd SET search_path = 'public';
    ALTER ROLE postgres IN DATABASE odd SET standard_conforming_strings = off;";

#[tokio::test]
async fn sessions_are_pinned_whatever_the_database_says() {
    for major in [14, 15, 16, 17, 18].into_iter().filter(|&major| Postgres::installed(major)) {
        let server = audit_testkit::shared(major).await;
        server.execute("postgres", "DROP DATABASE IF EXISTS odd");
        server.execute("postgres", "CREATE DATABASE odd");
        server.execute("postgres", ODD);
        let client = connect(&server.url("odd")).await.unwrap();
        let since = PINNED_SINCE.iter().filter(|(first, _, _)| u32::from(major) >= *first);
        for (name, value) in PINNED.iter().copied().chain(since.map(|(_, name, value)| (*name, *value))) {
            let query = format!("SELECT pg_catalog.current_setting('{name}')");
            assert_eq!(ask(&client, &query).await, value, "{name} on {major}");
        }
        let query = "SELECT pg_catalog.concat_ws('|', '2024-02-01'::date, '1 day'::interval, 0.1::float8 + 0.2, '\\x00'::bytea)";
        assert_eq!(ask(&client, query).await, "2024-02-01|1 day|0.30000000000000004|\\x00");
        assert_eq!(ask(&client, "SHOW application_name").await, "audit-test");
        drop(client);
        server.execute("postgres", "DROP DATABASE odd WITH (FORCE)");
    }
}

#[tokio::test]
async fn the_connection_string_may_name_the_application_and_give_settings() {
    let server = audit_testkit::shared(15).await;
    let url = format!("{}?application_name=mine&options=-c%20work_mem%3D5MB", server.url("postgres"));
    let client = connect(&url).await.unwrap();
    assert_eq!(ask(&client, "SHOW application_name").await, "mine");
    assert_eq!(ask(&client, "SHOW work_mem").await, "5MB");
}
