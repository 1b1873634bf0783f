use audit_testkit::shared;
use cdc_audit_tests::majors;
use cdc_audit_tests::workload::random::has_xml;
use cdc_audit_tests::workload::values::{PRELUDE, SINCE_15, TYPES, Type, XML, identifier};
use cdc_audit_tests::world::{SOURCE, World};
use expect_test::expect_file;

/// Each value of each type is inserted, changed to the next one, and deleted: what is read back equals what was
/// written.
#[tokio::test(flavor = "multi_thread")]
async fn every_value_of_every_type_survives() {
    for major in majors() {
        let server = shared(major).await;
        let (name, url) = server.new_database();
        let types = types(major, &audit_testkit::connect(&url).await).await;
        let columns: Vec<String> = types.iter().map(|kind| format!("{} {}", identifier(kind.name), kind.sql)).collect();
        let table = format!(
            "CREATE TABLE v (\"Id\" int PRIMARY KEY, {}); ALTER TABLE v REPLICA IDENTITY FULL;",
            columns.join(", ")
        );
        let world = World::on(server)
            .source(&name, &url)
            .keep_rows()
            .full(true)
            .sql(&format!("{PRELUDE}{table}"))
            .build()
            .await;
        let longest = types.iter().map(|kind| kind.texts.len()).max().unwrap_or_default();
        let mut sql = "INSERT INTO v (\"Id\") VALUES (-1);\n".to_owned();
        for number in 0..longest {
            let values: Vec<String> =
                types.iter().map(|kind| kind.literal(kind.texts[number % kind.texts.len()])).collect();
            sql.push_str(&format!("INSERT INTO v VALUES ({number}, {});\n", values.join(", ")));
        }
        for kind in &types {
            let column = identifier(kind.name);
            for text in kind.texts {
                sql.push_str(&format!("UPDATE v SET {column} = {} WHERE \"Id\" IN (-1, 0);\n", kind.literal(text)));
            }
            sql.push_str(&format!("UPDATE v SET {column} = NULL WHERE \"Id\" = -1;\n"));
        }
        sql.push_str("DELETE FROM v WHERE \"Id\" <> 0");
        server.execute(&world.database, &sql);
        world.catch_up().await;
        world.check().await;
    }
}

async fn types(major: u16, client: &tokio_postgres::Client) -> Vec<&'static Type> {
    let mut types: Vec<&Type> = TYPES.iter().collect();
    types.extend(has_xml(client).await.then_some(&XML));
    types.extend(SINCE_15.iter().filter(|_| major >= 15));
    types
}

/// The exact form of each value in JSON, on which other programs rely.
#[tokio::test(flavor = "multi_thread")]
async fn each_type_has_one_form_in_the_record() {
    let server = shared(15).await;
    let world =
        World::on(server).sql(&format!("{PRELUDE}CREATE TABLE one (id int PRIMARY KEY)")).publish_all().build().await;
    let kinds: Vec<&Type> = TYPES.iter().chain(SINCE_15).chain([&XML]).collect();
    let mut sql = String::new();
    for (at, kind) in kinds.iter().enumerate() {
        let rows: Vec<String> =
            kind.texts.iter().enumerate().map(|(n, text)| format!("({n}, {})", kind.literal(text))).collect();
        sql.push_str(&format!("CREATE TABLE t{at} (id int PRIMARY KEY, v {}); ", kind.sql));
        sql.push_str(&format!("INSERT INTO t{at} VALUES {};\n", rows.join(", ")));
    }
    server.execute(&world.database, &sql);
    world.catch_up().await;
    let sql = "SELECT regexp_replace(table_name, '^public.t', '')::int, (after -> 'v')::text FROM cdc_audit.versions \
               WHERE source = $1 AND event = 'created' ORDER BY position";
    let rows = world.hot().await.query(sql, &[&SOURCE]).await.expect("the hot table");
    let told: Vec<String> = rows
        .iter()
        .map(|row| {
            format!("{}: {}\n", kinds[usize::try_from(row.get::<_, i32>(0)).unwrap()].sql, row.get::<_, String>(1))
        })
        .collect();
    expect_file!["forms.txt"].assert_eq(&told.concat());
}
