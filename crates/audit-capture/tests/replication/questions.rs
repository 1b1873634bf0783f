use audit_core::position::Lsn;
use audit_testkit::{Postgres, shared_db};

use crate::{connect, refused, text};

#[tokio::test]
async fn the_server_says_who_it_is() {
    let db = shared_db(15).await;
    let client = connect(&db.url).await.unwrap();
    let identity = client.identify_system().await.unwrap();
    assert_eq!(identity.system_id.to_string(), db.execute("SELECT system_identifier FROM pg_control_system()"));
    assert_eq!((identity.timeline, identity.dbname.as_str()), (1, db.name.as_str()));
    let wal_end: Lsn = db.execute("SELECT pg_current_wal_lsn()").parse().unwrap();
    assert!(Lsn::ZERO < identity.wal_end && identity.wal_end <= wal_end, "{}", identity.wal_end);
    assert_eq!(client.timeline_history(1).await.unwrap(), []);
    assert!(client.server_version().starts_with("15."), "{}", client.server_version());
    let rows = client.query("SELECT 1, NULL UNION ALL SELECT 2, 'é'").await.unwrap();
    assert_eq!(rows, [[Some("1".to_owned()), None], [Some("2".to_owned()), Some("é".to_owned())]]);
    // After a refusal the connection can still be used.
    let error = refused(client.query("SELECT * FROM absent").await);
    assert_eq!(error.sqlstate().map(|code| code.code()), Some("42P01"), "{}", text(&error));
    client.identify_system().await.unwrap();
}

#[tokio::test]
async fn a_promoted_standby_tells_where_its_timeline_began() {
    let primary = Postgres::start(15);
    let standby = primary.standby(&[]).await;
    standby.promote();
    let client = connect(&standby.url("postgres")).await.unwrap();
    let identity = client.identify_system().await.unwrap();
    assert_eq!(identity.timeline, 2);
    let history = client.timeline_history(2).await.unwrap();
    assert_eq!(history.iter().map(|fork| fork.timeline).collect::<Vec<_>>(), [1]);
    assert!(Lsn::ZERO < history[0].fork_lsn && history[0].fork_lsn <= identity.wal_end);
}

/// The defaults of a database or a role must not change what values look like.
#[tokio::test]
async fn the_session_is_pinned() {
    for major in [14, 15, 16, 17, 18].into_iter().filter(|&major| Postgres::installed(major)) {
        let db = shared_db(major).await;
        let name = &db.name;
        db.execute(&format!(
            "ALTER DATABASE {name} SET DateStyle = 'SQL, DMY'; ALTER DATABASE {name} SET bytea_output = 'escape';
             ALTER DATABASE {name} SET TimeZone = 'Asia/Kolkata'; ALTER DATABASE {name} SET client_min_messages = 'log';
             ALTER DATABASE {name} SET search_path = 'public'"
        ));
        let url = format!("{}?options=-c%20IntervalStyle%3Diso_8601", db.url);
        let client = connect(&url).await.unwrap();
        for (setting, value) in audit_connect::PINNED {
            let rows = client.query(&format!("SHOW {setting}")).await.unwrap();
            assert_eq!(rows[0][0].as_deref(), Some(*value), "{setting} on {major}");
        }
        if major >= 17 {
            assert_eq!(client.query("SHOW transaction_timeout").await.unwrap()[0][0].as_deref(), Some("0"));
        }
    }
}
