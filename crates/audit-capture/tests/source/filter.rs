//! Row filters: `where` of the rules, and the publication's own filter.

use audit_capture::setup::{Wanted, plan};
use audit_core::rules::{Rules, TableRule};
use audit_testkit::{Database, shared_db};

use crate::{majors, notes, open, session, set_up, source, statements};

fn filtered(expression: &str) -> Rules {
    let rule = TableRule { name: "public.t".into(), row_filter: Some(expression.to_owned()), ..TableRule::default() };
    Rules { tables: vec![rule], ..Rules::default() }
}

async fn refusals(db: &Database, rules: &Rules) -> Vec<String> {
    let source = source(&db.url);
    let wanted = Wanted { source: &source, rules, daemon_role: "postgres", owner: None, replica_identity_full: None };
    let plan = plan(&session(db).await, &wanted).await.unwrap();
    plan.refusals.into_iter().map(|refusal| refusal.message).collect()
}

#[tokio::test]
async fn a_filter_is_the_publications_own_and_changes_in_one_transaction() {
    for major in majors() {
        let db = shared_db(major).await;
        db.execute("CREATE TABLE t (id int PRIMARY KEY, status text); CREATE TABLE u (id int PRIMARY KEY)");
        if major < 15 {
            assert_eq!(refusals(&db, &filtered("id > 0")).await, ["public.t: PostgreSQL 14 cannot filter rows"]);
            continue;
        }
        let (source, filter) =
            (source(&db.url), "SELECT pg_get_expr(prqual, prrelid) FROM pg_publication_rel WHERE prqual IS NOT NULL");
        set_up(&source, &filtered("id > 0 AND id <> 7"), None).await;
        assert_eq!(db.execute(filter), "((id > 0) AND (id <> 7))");
        let again = set_up(&source, &filtered("id>0 and (id != 7)"), None).await;
        assert_eq!(statements(&again), [""; 0], "the same in other words");
        let other = set_up(&source, &filtered("id > 9"), None).await;
        assert!(statements(&other).iter().any(|sql| sql.starts_with("BEGIN;\nALTER PUBLICATION")), "{:?}", other.steps);
        assert_eq!(db.execute(filter), "(id > 9)");
        let none = set_up(&source, &Rules::default(), None).await;
        assert!(notes(&none)[0].contains("filters rows of public.t, as no rule asks: (id > 9)"), "{:?}", notes(&none));
        assert_eq!(db.execute("SELECT count(*) FROM pg_publication WHERE pubname = 'cdc_audit_probe'"), "0");
        // ⚠ For a schema as a whole PostgreSQL filters no rows, whatever else is published.
        db.execute("ALTER PUBLICATION cdc_audit ADD TABLES IN SCHEMA public");
        let refused = refusals(&db, &filtered("id > 9")).await;
        assert!(refused.iter().any(|said| said.contains("PostgreSQL filters no rows")), "{refused:?}");
        drop(open(&db.url).await);
    }
}

/// ⚠ PostgreSQL accepts such a publication, and from then on refuses the application's statements.
#[tokio::test]
async fn a_filter_that_would_break_the_application_is_refused() {
    let db = shared_db(15).await;
    db.execute("CREATE TABLE t (id int PRIMARY KEY, status text)");
    let refused = refusals(&db, &filtered("status <> 'draft' AND id > 0")).await;
    let expected =
        "public.t: with this row filter PostgreSQL would refuse UPDATE and DELETE: status do not identify a row";
    assert_eq!(refused, [expected]);
    for (wrong, said) in
        [("stattus = 'x'", "stattus"), ("id", "boolean"), ("id > 0); DROP TABLE t; --", "multiple commands")]
    {
        let refused = refusals(&db, &filtered(wrong)).await;
        assert!(refused[0].contains("does not take the row filter") && refused[0].contains(said), "{refused:?}");
    }
    assert_eq!(db.execute("SELECT count(*) FROM t"), "0");
    let full = set_up(&source(&db.url), &filtered("status <> 'draft'"), Some(&[])).await;
    assert!(statements(&full).iter().any(|sql| sql.contains("WHERE (status <> 'draft')")), "{:?}", full.steps);
    db.execute("INSERT INTO t VALUES (1, 'live'); UPDATE t SET status = 'draft'; DELETE FROM t");
    // Partitions have replica identities of their own.
    db.execute(
        "CREATE TABLE p (id int PRIMARY KEY, status text) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (1) TO (10); \
         CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20); ALTER TABLE p REPLICA IDENTITY FULL; ALTER TABLE p1 REPLICA IDENTITY FULL",
    );
    let mut rules = filtered("status <> 'draft'");
    rules.tables[0].name = "public.p".into();
    assert!(refusals(&db, &rules).await[0].contains("would refuse UPDATE and DELETE"));
    db.execute("ALTER TABLE p2 REPLICA IDENTITY FULL");
    assert_eq!(refusals(&db, &rules).await, [""; 0]);
}
