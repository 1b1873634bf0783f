//! Checks that the proxy's faults are what their names say.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use audit_testkit::{Proxy, Traffic, connect, eventually_async, shared_db};

#[tokio::test]
async fn a_cut_ends_connections_and_lets_new_ones_in() {
    let database = shared_db(15).await;
    let proxy = Proxy::to(database.server.port());
    let url = proxy.through(&database.url);
    let first = connect(&url).await;
    proxy.cut();
    assert!(first.simple_query("SELECT 1").await.is_err());
    connect(&url).await.simple_query("SELECT 1").await.unwrap();
    assert_eq!(proxy.accepted(), 2);
    eventually_async("both connections end", async || proxy.open() == 0).await;
}

#[tokio::test]
async fn an_answer_can_be_lost_after_the_work_was_done() {
    let database = shared_db(15).await;
    let proxy = Proxy::to(database.server.port());
    let client = connect(&proxy.through(&database.url)).await;
    database.execute("CREATE TABLE t (id int)");
    proxy.set(Traffic::HoldAnswers);
    let insert = tokio::spawn(async move { client.simple_query("INSERT INTO t VALUES (1)").await.is_err() });
    eventually_async("the row arrives", async || database.execute("SELECT count(*) FROM t") == "1").await;
    proxy.cut();
    assert!(insert.await.unwrap(), "the client must not know");
}

#[tokio::test]
async fn held_traffic_is_not_lost_and_delays_add_up() {
    let database = shared_db(15).await;
    let proxy = Proxy::to(database.server.port());
    let client = connect(&proxy.through(&database.url)).await;
    proxy.set(Traffic::Hold);
    let held = tokio::spawn(async move { client.simple_query("SELECT 1").await.map(|_| client) });
    let idle = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT 1'";
    assert_eq!(database.execute(idle), "0");
    proxy.set(Traffic::Pass);
    let client = held.await.unwrap().unwrap();

    proxy.delay(Duration::from_millis(50));
    let begun = Instant::now();
    client.simple_query("SELECT 1").await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(100), "there and back");
}

#[tokio::test]
async fn a_stream_breaks_off_after_so_many_bytes() {
    let database = shared_db(15).await;
    let proxy = Proxy::to(database.server.port());
    let client = connect(&proxy.through(&database.url)).await;
    proxy.cut_after(1_000_000);
    assert!(client.simple_query("SELECT repeat('x', 1000) FROM generate_series(1, 2000)").await.is_err());
    let client = connect(&proxy.through(&database.url)).await;
    client.simple_query("SELECT repeat('x', 1000) FROM generate_series(1, 2000)").await.unwrap();
}

#[tokio::test]
async fn refused_connections_leave_standing_ones_alone_and_a_redirect_moves_new_ones() {
    let (one, two) = (shared_db(15).await, audit_testkit::Postgres::start(15));
    let proxy = Proxy::to(one.server.port());
    let url = proxy.through(&one.server.url("postgres"));
    let standing = connect(&url).await;
    proxy.set(Traffic::Refuse);
    assert!(tokio_postgres::connect(&url, tokio_postgres::NoTls).await.is_err());
    standing.simple_query("SELECT 1").await.unwrap();
    proxy.set(Traffic::Pass);
    proxy.redirect(two.port());
    let port: String = connect(&url).await.query_one("SHOW port", &[]).await.unwrap().get(0);
    assert_eq!(port, two.port().to_string());
}
