//! A look-up describes tables exactly as pgoutput does, and does it quickly.

use std::collections::BTreeMap;

use audit_capture::catalog::{self, Generated, PublishedTable};
use audit_core::shape::{Identity, Relation, TableName};
use audit_core::value::Kind;
use audit_pgoutput::{Message, Scratch, decode};
use audit_testkit::{Database, shared_db, unique};
use tokio_postgres::Client;

use crate::{majors, session};

/// Tables that are easy to describe wrongly, each with a row to send.
const ZOO: &str = r#"
    CREATE SCHEMA "odd ""schema.";
    CREATE TYPE mood AS ENUM ('sad', 'ok');
    CREATE DOMAIN price AS numeric(18,4) CHECK (VALUE >= 0);
    CREATE DOMAIN dear AS price;
    CREATE DOMAIN prices AS price[];
    CREATE TYPE pair AS (a int, b text);
    CREATE EXTENSION citext;

    CREATE TABLE plain (id int PRIMARY KEY, name text, amount numeric(10,2), at timestamptz(3));
    CREATE TABLE wide_key (c text, b int, x int, a bigint, PRIMARY KEY (a, c) INCLUDE (x));
    CREATE TABLE "odd ""schema."."Tab.le 🦀" ("Ä ""b." int PRIMARY KEY, "select" text);
    CREATE TABLE no_key (a int, b text);
    CREATE TABLE deferrable_key (a int PRIMARY KEY DEFERRABLE, b text);
    CREATE TABLE whole (id int PRIMARY KEY, b text);
    ALTER TABLE whole REPLICA IDENTITY FULL;
    CREATE TABLE nothing (id int PRIMARY KEY, b text);
    ALTER TABLE nothing REPLICA IDENTITY NOTHING;
    CREATE TABLE by_index (id int PRIMARY KEY, code text NOT NULL, x int NOT NULL);
    CREATE UNIQUE INDEX by_index_code ON by_index (x, code);
    ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_code;
    CREATE TABLE index_gone (id int PRIMARY KEY, code text NOT NULL);
    CREATE UNIQUE INDEX index_gone_code ON index_gone (code);
    ALTER TABLE index_gone REPLICA IDENTITY USING INDEX index_gone_code;
    DROP INDEX index_gone_code;
    CREATE TABLE dropped (a int, b int, id int PRIMARY KEY, c int);
    ALTER TABLE dropped DROP COLUMN a, DROP COLUMN c, ADD COLUMN d varchar(7);
    CREATE TABLE computed (id int PRIMARY KEY, g int GENERATED ALWAYS AS (id * 2) STORED,
                           i int GENERATED ALWAYS AS IDENTITY, last text);
    CREATE TABLE typed (id int PRIMARY KEY, m mood, p price, dd dear, ps prices, pp price[], c pair, ms mood[],
                        ci citext, cis citext[], bx box[], r int4range, n numeric[], h information_schema.cardinal_number,
                        jb jsonb, by bytea, bits bit(3));
    ALTER TABLE typed ALTER jb SET STORAGE PLAIN;
    CREATE TABLE rooted (id int, at date, x text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
    CREATE TABLE leaf (x text, gone int, at date NOT NULL, id int NOT NULL);
    ALTER TABLE leaf DROP COLUMN gone;
    ALTER TABLE rooted ATTACH PARTITION leaf FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
    CREATE TABLE rooted_whole (id int, x text) PARTITION BY LIST (id);
    CREATE TABLE rooted_whole_1 PARTITION OF rooted_whole FOR VALUES IN (1) PARTITION BY LIST (x);
    CREATE TABLE rooted_whole_1a PARTITION OF rooted_whole_1 FOR VALUES IN ('a');
    CREATE TABLE rooted_whole_2 PARTITION OF rooted_whole FOR VALUES IN (2);
    ALTER TABLE rooted_whole REPLICA IDENTITY FULL;
    ALTER TABLE rooted_whole_1a REPLICA IDENTITY FULL;
    CREATE TABLE unfinished_key (id int NOT NULL, x text) PARTITION BY RANGE (id);
    CREATE TABLE unfinished_key_1 PARTITION OF unfinished_key FOR VALUES FROM (0) TO (9);
    ALTER TABLE ONLY unfinished_key ADD PRIMARY KEY (id);
"#;

const ROWS: &str = r#"
    INSERT INTO plain VALUES (1); INSERT INTO wide_key VALUES ('c', 1, 1, 1);
    INSERT INTO "odd ""schema."."Tab.le 🦀" VALUES (1); INSERT INTO no_key VALUES (1);
    INSERT INTO deferrable_key VALUES (1); INSERT INTO whole VALUES (1); INSERT INTO nothing VALUES (1);
    INSERT INTO by_index VALUES (1, 'c', 1); INSERT INTO index_gone VALUES (1, 'c');
    INSERT INTO dropped (id) VALUES (1); INSERT INTO computed VALUES (1); INSERT INTO typed VALUES (1);
    INSERT INTO rooted VALUES (1, '2026-02-03'); INSERT INTO rooted_whole VALUES (1, 'a');
    INSERT INTO unfinished_key VALUES (1);
"#;

const EMPTY: &str = "DO $$ DECLARE t text; BEGIN
    FOR t IN SELECT oid::regclass FROM pg_class WHERE oid >= 16384 AND relkind IN ('r', 'p') LOOP EXECUTE 'TRUNCATE ' || t; END LOOP;
    END $$";

const OPTIONS: &str = "publish_via_partition_root = true";

/// The last Relation message of each table, in everything that was committed since the slot was created.
async fn streamed(client: &Client, slot: &str, publication: &str) -> BTreeMap<TableName, Relation> {
    let sql = "SELECT data FROM pg_logical_slot_peek_binary_changes($1, NULL, NULL, 'proto_version', '1', \
               'publication_names', $2, 'messages', 'true')";
    let mut relations = BTreeMap::new();
    for row in client.query(sql, &[&slot, &publication]).await.unwrap() {
        let mut scratch = Scratch::default();
        if let Message::Relation(relation) = decode(row.get(0), &mut scratch).unwrap() {
            relations.insert(relation.name.clone(), relation);
        }
    }
    relations
}

/// Creates the publication, then changes what it publishes, and compares the descriptions.
async fn compare(db: &Database, publish: &str) -> BTreeMap<TableName, PublishedTable> {
    let client = session(db).await;
    let slot = unique("slot");
    db.execute(EMPTY);
    db.execute(publish);
    db.execute(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"));
    db.execute(ROWS);
    let relations = streamed(&client, &slot, "p").await;
    let tables = catalog::published(&client, "p").await.unwrap();
    for table in &tables {
        let sent = relations.get(&table.name).unwrap_or_else(|| panic!("{} was not sent", table.name));
        assert_eq!(table.relation(), *sent, "PostgreSQL {}", db.server.major());
        assert_eq!(table.relation().digest(), sent.digest());
        let alone = catalog::table(&client, "p", table.catalog.oid).await.unwrap();
        assert_eq!(alone.as_ref(), Some(table), "PostgreSQL {}", db.server.major());
    }
    // The stream describes leaves too, but assigns no change to them.
    let leaves = ["leaf", "rooted_whole_1a", "unfinished_key_1"];
    let missing = relations
        .keys()
        .find(|name| !leaves.contains(&name.table.as_str()) && !tables.iter().any(|t| t.name == **name));
    assert_eq!(missing, None);
    db.execute(&format!("SELECT pg_drop_replication_slot('{slot}'); DROP PUBLICATION p"));
    tables.into_iter().map(|table| (table.name.clone(), table)).collect()
}

fn get<'t>(tables: &'t BTreeMap<TableName, PublishedTable>, name: &str) -> &'t PublishedTable {
    tables.get(&TableName::new("public", name)).unwrap()
}

#[tokio::test]
async fn a_table_looked_up_is_the_table_streamed() {
    for major in majors() {
        let db = shared_db(major).await;
        db.execute(ZOO);
        let tables = compare(&db, &format!("CREATE PUBLICATION p FOR ALL TABLES WITH ({OPTIONS})")).await;
        assert_eq!(tables.len(), 15);
        let key = |name: &str| {
            let table = get(&tables, name);
            (table.catalog.primary_key.clone(), table.identity_key.clone())
        };
        assert_eq!(key("wide_key"), (vec![4, 1], vec![4, 1]), "in key order, without what is only included");
        assert_eq!(key("deferrable_key"), (vec![1], vec![]));
        assert_eq!(key("by_index"), (vec![1], vec![3, 2]));
        assert_eq!(key("dropped"), (vec![3], vec![3]));
        assert_eq!(get(&tables, "whole").identity, Identity::Full);
        assert!(!get(&tables, "rooted_whole").leaves_full && get(&tables, "whole").leaves_full);
        assert!(get(&tables, "rooted").catalog.partitioned && !get(&tables, "plain").catalog.partitioned);
        assert_eq!(get(&tables, "plain").toastable().collect::<Vec<_>>(), ["name", "amount"]);
        assert_eq!(get(&tables, "computed").columns[1].generated, Generated::Stored);
    }
}

#[tokio::test]
async fn kinds_are_found_through_domains_and_arrays() {
    for major in majors() {
        let db = shared_db(major).await;
        db.execute(ZOO);
        db.execute("CREATE PUBLICATION p FOR TABLE typed, plain");
        let tables = catalog::published(&session(&db).await, "p").await.unwrap();
        let columns = tables.iter().flat_map(|table| &table.catalog.columns);
        let found: Vec<(&str, String, &str)> =
            columns.map(|c| (c.name.as_str(), c.kind.to_string(), c.type_name.as_str())).collect();
        let expected = [
            ("id", "int4", "integer"),
            ("name", "text", "text"),
            ("amount", "numeric(10,2)", "numeric(10,2)"),
            ("at", "timestamptz", "timestamp(3) with time zone"),
            ("id", "int4", "integer"),
            ("m", "text", "public.mood"),
            ("p", "numeric(18,4)", "public.price"),
            ("dd", "numeric(18,4)", "public.dear"),
            ("ps", "numeric(18,4)[]", "public.prices"),
            ("pp", "numeric(18,4)[]", "public.price[]"),
            ("c", "text", "public.pair"),
            ("ms", "text[]", "public.mood[]"),
            ("ci", "text", "public.citext"),
            ("cis", "text[]", "public.citext[]"),
            // Elements of box[] are separated by semicolons.
            ("bx", "text", "box[]"),
            ("r", "text", "int4range"),
            ("n", "numeric[]", "numeric[]"),
            ("h", "int4", "information_schema.cardinal_number"),
            ("jb", "jsonb", "jsonb"),
            ("by", "bytea", "bytea"),
            ("bits", "text", "bit(3)"),
        ];
        assert_eq!(found, expected.map(|(name, kind, type_name)| (name, kind.to_owned(), type_name)));
        let holds = |name: &str| tables[1].catalog.columns.iter().find(|c| c.name == name).map(|c| c.holds.join(", "));
        for (name, expected) in [
            ("id", ""),
            ("dd", "public.price, numeric"),
            ("pp", "public.price, numeric"),
            ("ms", "public.mood"),
            ("cis", "public.citext"),
        ] {
            assert_eq!(holds(name).as_deref(), Some(expected), "{name}");
        }
        assert!(holds("c").is_some_and(|fields| !fields.is_empty()));
        assert_eq!(tables[1].catalog.columns[3].kind, Kind::Numeric(Some((18, 4))));
        assert!(!tables[1].toastable().any(|name| name == "jb"));
    }
}

#[tokio::test]
async fn column_lists_row_filters_and_schemas_are_followed() {
    for major in majors().filter(|&major| major >= 15) {
        let db = shared_db(major).await;
        db.execute(ZOO);
        let publish = format!(
            "CREATE PUBLICATION p FOR TABLE plain (at, id), no_key, by_index (x, code) WHERE (x > 0), rooted (id, at)
             WITH ({OPTIONS}, publish = 'insert, truncate')"
        );
        let tables = compare(&db, &publish).await;
        assert!(get(&tables, "plain").has_column_list && !get(&tables, "no_key").has_column_list);
        assert_eq!(get(&tables, "by_index").row_filter.as_deref(), Some("(x > 0)"));
        assert_eq!(get(&tables, "plain").relation().columns.len(), 2);
        assert_eq!(get(&tables, "plain").catalog.columns.len(), 4);
        let publish = format!(
            "CREATE PUBLICATION p FOR TABLES IN SCHEMA public, TABLE \"odd \"\"schema.\".\"Tab.le 🦀\" WITH ({OPTIONS})"
        );
        assert_eq!(compare(&db, &publish).await.len(), 15);
    }
}

#[tokio::test]
async fn generated_columns_are_sent_where_the_publication_says_so() {
    for major in majors().filter(|&major| major >= 18) {
        let db = shared_db(major).await;
        db.execute(ZOO);
        db.execute("ALTER TABLE computed ADD COLUMN v int GENERATED ALWAYS AS (id + 1) VIRTUAL");
        let all = format!("CREATE PUBLICATION p FOR ALL TABLES WITH ({OPTIONS}, publish_generated_columns = stored)");
        let names = |tables: BTreeMap<TableName, PublishedTable>| {
            let columns = get(&tables, "computed").relation().columns;
            columns.into_iter().map(|column| column.name).collect::<Vec<_>>()
        };
        assert_eq!(names(compare(&db, &all).await), ["id", "g", "i", "last"]);
        let listed = "CREATE PUBLICATION p FOR TABLE computed (g, id)";
        assert_eq!(names(compare(&db, listed).await), ["id", "g"]);
        let none = format!("CREATE PUBLICATION p FOR ALL TABLES WITH ({OPTIONS})");
        assert_eq!(names(compare(&db, &none).await), ["id", "i", "last"]);
    }
}

#[tokio::test]
async fn what_does_not_exist_is_empty() {
    let db = shared_db(15).await;
    let client = session(&db).await;
    assert_eq!(catalog::published(&client, "nowhere").await.unwrap(), []);
    assert_eq!(catalog::table(&client, "nowhere", 1).await.unwrap(), None);
}

/// The time depends on the number of statements, not of tables; a look-up for each table would take minutes.
#[tokio::test]
async fn ten_thousand_tables_are_read_at_once() {
    let db = shared_db(15).await;
    db.execute(
        "DO $$ BEGIN FOR i IN 1..10000 LOOP
             EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, a text, b numeric(10,2), c timestamptz)', i);
             IF i % 1000 = 0 THEN COMMIT; END IF;
         END LOOP; END $$;
         CREATE PUBLICATION p FOR TABLES IN SCHEMA public;",
    );
    let client = session(&db).await;
    let begun = std::time::Instant::now();
    let tables = catalog::published(&client, "p").await.unwrap();
    eprintln!("10,000 tables in {:?}", begun.elapsed());
    assert_eq!(tables.len(), 10_000);
    assert_eq!(tables[0].catalog.primary_key, [1]);
}
