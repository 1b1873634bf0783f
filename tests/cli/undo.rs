mod further;
mod people;
mod spans;

use std::process::Output;

use audit_testkit::{Daemon, Postgres, connect, shared};
use cdc_audit_tests::world::World;
use serde_json::Value;

const TABLES: &str = "CREATE TABLE orders (id int PRIMARY KEY, state text, total numeric(10,2), note text); \
    CREATE TABLE lines (order_id int REFERENCES orders ON DELETE CASCADE, line int, part text, price float8, PRIMARY KEY (order_id, line)); \
    CREATE TABLE users (id int PRIMARY KEY, email text, password_hash text NOT NULL DEFAULT 'x', city text); \
    ALTER TABLE orders REPLICA IDENTITY FULL; ALTER TABLE lines REPLICA IDENTITY FULL; ALTER TABLE users REPLICA IDENTITY FULL";

const RULES: &str = "[[tables]]\nname = \"*\"\nignore_alone = []\nbaseline = false\n[[tables]]\nname = \"public.users\"\n\
    protect = { password_hash = \"full\", email = \"partial\" }\n";

/// A world with a daemon that goes on, and an operator of its own.
struct Desk {
    world: World,
    login: String,
    _daemon: Daemon,
}

async fn desk_with(tables: &str) -> Desk {
    let server = shared(15).await;
    desk_of(server, World::on(server).full(true).without_lake().unwitnessed().tables(RULES).sql(tables).build().await)
}

fn desk_of(server: &Postgres, world: World) -> Desk {
    let login = audit_testkit::unique("ann");
    server.execute(
        &world.database,
        &format!(
            "CREATE ROLE {login} LOGIN PASSWORD 'sesame'; GRANT USAGE ON SCHEMA cdc_audit TO {login}; \
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {login}"
        ),
    );
    let daemon = world.launch().start();
    Desk { world, login, _daemon: daemon }
}

async fn desk() -> Desk {
    desk_with(TABLES).await
}

impl Desk {
    /// The operator's address of the source.
    fn url(&self) -> String {
        let (_, place) = self.world.url.split_once('@').expect("a role and a place");
        format!("postgres://{}@{place}", self.login)
    }

    /// Runs a command with the options that every undo has.
    fn command(&self, arguments: &[&str]) -> Output {
        let url = self.url();
        let options = ["--as", &url, "--actor", "boss", "--reason", "by mistake", "--wait", "120s"];
        let config = self.world.config.to_str().expect("a plain name");
        std::process::Command::new(audit_testkit::program())
            .args(arguments)
            .args(options)
            .args(["--config", config])
            .env("PGPASSWORD", "sesame")
            .output()
            .expect("the program runs")
    }

    #[track_caller]
    fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?} ended with {}:\n{stdout}{stderr}", output.status);
        stdout.into_owned()
    }

    /// Runs a command that must be refused, and returns what it said.
    #[track_caller]
    fn refused(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        said
    }

    async fn sql(&self, statements: &str) {
        shared(15).await.execute(&self.world.database, statements);
    }

    async fn ask(&self, query: &str) -> String {
        let row = self.world.client().await.query_one(query, &[]).await.expect("an answer");
        row.get::<_, Option<String>>(0).unwrap_or_else(|| "∅".to_owned())
    }

    /// Waits until the trail of a row has so many versions.
    fn versions(&self, table: &str, key: &str, count: usize) -> Vec<Value> {
        let mut found = Vec::new();
        audit_testkit::eventually("the versions", || {
            let output = self.world.command(&["history", table, key, "--json"]);
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            found = said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
            found.len() >= count
        });
        found
    }
}

fn position(version: &Value) -> &str {
    version["position"].as_str().expect("a position")
}

const ORDER: &str = "SELECT (SELECT concat_ws('|', state, total, coalesce(note, '∅')) FROM orders WHERE id = 1)";

/// A trial runs and leaves nothing; what is committed is said, recorded and can be undone in turn.
#[tokio::test(flavor = "multi_thread")]
async fn an_update_is_tried_undone_and_redone() {
    let desk = desk().await;
    desk.sql("INSERT INTO orders VALUES (1, 'open', 12.50, NULL); UPDATE orders SET state = 'paid', note = 'it''s \\ \"late\"' WHERE id = 1").await;
    desk.versions("orders", "1", 2);
    let tried = desk.succeed(&["undo", "orders", "1", "v2"]);
    assert!(
        tried.contains("UPDATE public.orders SET state = 'open'::text, note = NULL::text WHERE id = '1'::integer"),
        "{tried}"
    );
    assert!(tried.contains("ran and rolled back") && tried.contains("--yes"), "{tried}");
    assert_eq!(desk.ask(ORDER).await, r#"paid|12.50|it's \ "late""#);
    let done: Value =
        serde_json::from_str(&desk.succeed(&["undo", "orders", "1", "v2", "--yes", "--json"])).expect("JSON");
    assert_eq!((&done["applied"], done["versions"].as_array().map(Vec::len)), (&Value::from(true), Some(1)), "{done}");
    assert_eq!(desk.ask(ORDER).await, "open|12.50|∅");
    let version = &done["versions"][0];
    assert_eq!((&version["actor_id"], &version["reason"]), (&Value::from("boss"), &Value::from("by mistake")));
    assert_eq!(version["context"]["session_user"], Value::from(desk.login.as_str()));
    let first = desk.versions("orders", "1", 3).remove(1);
    assert_eq!(version["context"]["undo_of"][0], first["position"]);
    // Both are linked, and whoever asks can look through them.
    let positions = |arguments: &[&str], field: &str| -> Vec<Value> {
        let output = desk.world.command(arguments);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")[field].clone()).collect()
    };
    let all = desk.versions("orders", "1", 3);
    assert_eq!((&all[1]["undone_by"], &all[0]["undo_of"][0]), (&all[0]["position"], &all[1]["position"]), "{all:?}");
    let history = ["history", "orders", "1", "--json", "--net"];
    assert_eq!(positions(&history, "position"), [all[2]["position"].clone()]);
    let blame = ["blame", "orders", "1", "--json", "--through-undo"];
    assert_eq!(positions(&blame, "position"), vec![all[2]["position"].clone(); 4]);
    assert_eq!(positions(&blame[..4], "position")[1], all[0]["position"]);
    desk.succeed(&["undo", version["position"].as_str().expect("a position"), "--yes"]);
    assert_eq!(desk.ask(ORDER).await, r#"paid|12.50|it's \ "late""#);
    desk.versions("orders", "1", 4);
    assert_eq!(positions(&history, "position"), [all[1]["position"].clone(), all[2]["position"].clone()]);
    assert_eq!(positions(&blame, "position")[1], all[1]["position"]);
}

/// A value that someone changed later is a conflict, which is shown from three sides; other columns are none.
#[tokio::test(flavor = "multi_thread")]
async fn a_later_change_is_a_conflict_and_nothing_is_written() {
    let desk = desk().await;
    desk.sql(
        "INSERT INTO orders VALUES (1, 'open', 1, NULL), (2, 'open', 1, NULL); UPDATE orders SET state = 'paid'; \
         UPDATE orders SET note = 'kept' WHERE id = 1",
    )
    .await;
    let xid = desk.versions("orders", "1", 3)[1]["xid"].to_string();
    desk.sql("SELECT cdc_audit.set_context('{\"actor_id\": \"eve\"}'); BEGIN; SELECT cdc_audit.set_context('{\"actor_id\": \"eve\"}'); UPDATE orders SET state = 'sent' WHERE id = 2; COMMIT").await;
    desk.versions("orders", "2", 3);
    let commit = format!("xid:{xid}");
    let said = desk.refused(11, &["undo", &commit, "--yes"]);
    let row = said.lines().find(|line| line.contains("public.orders 2")).expect("a row");
    let cells: Vec<&str> = row.split('|').map(str::trim).filter(|cell| !cell.is_empty()).collect();
    assert_eq!(cells, ["public.orders 2", "state", "paid", "open", "sent", "eve"], "{said}");
    assert_eq!(desk.ask(ORDER).await, "paid|1.00|kept");
    let done = desk.succeed(&["undo", &commit, "--yes", "--keep-later", "--json"]);
    assert_eq!(desk.ask(ORDER).await, "open|1.00|kept");
    // It names the version that it put back, and not the one that it kept, and not the whole transaction.
    let done: Value = serde_json::from_str(&done).expect("JSON");
    let context = &done["versions"][0]["context"];
    let first = desk.versions("orders", "1", 4).remove(2)["position"].clone();
    assert_eq!((&context["undo_of"], &context["undo_of_xid"]), (&Value::from(vec![first]), &Value::Null), "{context}");
    assert_eq!(desk.ask("SELECT state FROM orders WHERE id = 2").await, "sent");
    let said = desk.refused(11, &["undo", "orders", "2", "v2", "--yes"]);
    assert!(said.contains("--force"), "{said}");
    desk.succeed(&["undo", "orders", "2", "v2", "--yes", "--force"]);
    assert_eq!(desk.ask("SELECT state FROM orders WHERE id = 2").await, "open");
}

/// A parent with children that its removal took along is put back as a whole; what others added since is not taken along.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_undone_in_the_order_of_foreign_keys_and_touches_nobody_elses_rows() {
    let desk = desk().await;
    desk.sql("BEGIN; INSERT INTO orders VALUES (1, 'open', 1, NULL); INSERT INTO lines VALUES (1, 1, 'a', -0.0), (1, 2, 'b', 1e20); COMMIT").await;
    desk.sql("DELETE FROM orders WHERE id = 1").await;
    let versions = desk.versions("orders", "1", 2);
    let all = "SELECT string_agg(l::text, ';' ORDER BY line) FROM lines l";
    desk.succeed(&["undo", &format!("xid:{}", versions[0]["xid"]), "--yes"]);
    assert_eq!(desk.ask(all).await, "(1,1,a,0);(1,2,b,1e+20)");
    // The first transaction can be undone now, but not after somebody has added a line.
    desk.sql("INSERT INTO lines VALUES (1, 3, 'c', 0)").await;
    let made = format!("xid:{}", versions[1]["xid"]);
    let said = desk.refused(11, &["undo", &made, "--yes"]);
    assert!(said.contains("lines_order_id_fkey") && said.contains("public.lines 1,3"), "{said}");
    assert!(desk.ask(all).await.contains("(1,3,c,0)"));
    desk.sql("DELETE FROM lines WHERE line = 3").await;
    desk.succeed(&["undo", &made, "--yes"]);
    assert_eq!(desk.ask("SELECT count(*)::text FROM orders").await, "0");
    // The key is used again: the row that was removed cannot come back.
    desk.sql("INSERT INTO orders VALUES (1, 'other', 1, NULL)").await;
    let said = desk.refused(11, &["undo", position(&versions[0]), "--yes"]);
    assert!(said.contains("another row has this key now"), "{said}");
}

/// A row that was removed, and another one that got its key in the same transaction, go back to what they were.
#[tokio::test(flavor = "multi_thread")]
async fn a_removed_row_and_one_that_took_its_key_are_put_back() {
    let desk = desk().await;
    desk.sql("INSERT INTO orders VALUES (1, 'open', 1, NULL), (2, 'paid', 2, NULL)").await;
    desk.sql("BEGIN; DELETE FROM orders WHERE id = 1; UPDATE orders SET id = 1, note = 'moved' WHERE id = 2; COMMIT")
        .await;
    let moved = format!("xid:{}", desk.versions("orders", "1", 3)[0]["xid"]);
    let all = "SELECT string_agg(concat_ws('|', id, state, total, note), ';' ORDER BY id) FROM orders";
    let said = desk.succeed(&["undo", &moved, "--yes", "--json"]);
    assert_eq!(desk.ask(all).await, "1|open|1.00;2|paid|2.00");
    let done: Value = serde_json::from_str(&said).expect("JSON");
    desk.succeed(&["undo", &format!("xid:{}", done["xid"].as_str().expect("a number")), "--yes"]);
    assert_eq!(desk.ask(all).await, "1|paid|2.00|moved");
    // Where the one that took the key stays, there is no place for the other.
    desk.sql("UPDATE orders SET note = 'later'").await;
    let said = desk.refused(11, &["undo", &moved, "--yes", "--keep-later"]);
    assert!(said.contains("all rows were changed later, and are kept"), "{said}");
    assert_eq!(desk.ask(all).await, "1|paid|2.00|later");
}

/// Versions of which nothing is put back are not named as undone.
#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_put_back_is_named() {
    let desk = desk().await;
    desk.sql(
        "INSERT INTO orders VALUES (1, 'open', 1, NULL), (2, 'open', 1, NULL); BEGIN; UPDATE orders SET note = 'x' WHERE id = 1; \
         UPDATE orders SET state = 'paid' WHERE id = 1; UPDATE orders SET total = 2 WHERE id = 2; COMMIT",
    )
    .await;
    let versions = desk.versions("orders", "1", 3);
    desk.versions("orders", "2", 2);
    let commit = format!("xid:{}", versions[0]["xid"]);
    let done = desk.succeed(&["undo", &commit, "--yes", "--fields", "state", "--json"]);
    let done: Value = serde_json::from_str(&done).expect("JSON");
    assert_eq!(done["versions"][0]["context"]["undo_of"], Value::from(vec![versions[0]["position"].clone()]), "{done}");
    assert_eq!(desk.ask(ORDER).await, "open|1.00|x");
}

/// A row that is put back in part, and that somebody has since given to a parent that goes, is not removed with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_came_to_a_parent_later_is_not_removed_with_it() {
    let desk = desk_with(
        "CREATE TABLE orders (id int PRIMARY KEY); \
         CREATE TABLE lines (id int PRIMARY KEY, order_id int REFERENCES orders ON DELETE CASCADE, part text); \
         ALTER TABLE orders REPLICA IDENTITY FULL; ALTER TABLE lines REPLICA IDENTITY FULL",
    )
    .await;
    desk.sql("INSERT INTO lines VALUES (7, NULL, 'a'); BEGIN; INSERT INTO orders VALUES (1); UPDATE lines SET part = 'b'; COMMIT").await;
    let xid = format!("xid:{}", desk.versions("lines", "7", 2)[0]["xid"]);
    desk.sql("UPDATE lines SET order_id = 1").await;
    let said = desk.refused(11, &["undo", &xid, "--yes", "--accept-triggers"]);
    assert!(said.contains("lines_order_id_fkey"), "{said}");
    assert_eq!(desk.ask("SELECT concat_ws('|', order_id, part) FROM lines").await, "1|b");
}

/// Neither a mask nor what a mask hides is written or shown.
#[tokio::test(flavor = "multi_thread")]
async fn protected_columns_are_left_alone_and_listed() {
    let desk = desk().await;
    desk.sql(
        "INSERT INTO users VALUES (5, 'ann@acme.test', 'digest-1', 'Rome'); \
         UPDATE users SET email = 'eve@evil.test', password_hash = 'digest-2', city = 'Oslo'; DELETE FROM users",
    )
    .await;
    let versions = desk.versions("users", "5", 3);
    let said = desk.succeed(&["undo", "users", "5", "v3", "--yes"]);
    assert!(said.contains("left alone: public.users.email (partial)"), "{said}");
    assert!(said.contains("left alone: public.users.password_hash (full)"), "{said}");
    let row = "SELECT concat_ws('|', coalesce(email, '∅'), password_hash, city) FROM users";
    assert_eq!(desk.ask(row).await, "∅|x|Oslo");
    desk.sql("UPDATE users SET email = 'real@acme.test'").await;
    let said = desk.succeed(&["undo", position(&versions[1]), "--yes"]);
    assert_eq!(desk.ask(row).await, "real@acme.test|x|Rome");
    assert!(!said.contains("acme") && !said.contains("digest"), "{said}");
    // Without a default the row cannot be made again.
    desk.sql("ALTER TABLE users ALTER password_hash DROP DEFAULT; DELETE FROM users").await;
    desk.versions("users", "5", 7);
    let said = desk.refused(11, &["undo", "users", "5", "v4", "--yes"]);
    assert!(said.contains("column password_hash must have a value"), "{said}");
}

/// Triggers stay on; what they change beyond the undo is shown, and rolled back unless it is accepted.
#[tokio::test(flavor = "multi_thread")]
async fn what_triggers_change_is_shown_and_rolled_back_unless_accepted() {
    let desk = desk_with(
        "CREATE TABLE orders (id int PRIMARY KEY, state text, touched int NOT NULL DEFAULT 0); CREATE TABLE log (at int); \
         ALTER TABLE orders REPLICA IDENTITY FULL; \
         CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN new.touched = old.touched + 1; INSERT INTO log VALUES (1); RETURN new; END'; \
         CREATE TRIGGER touch BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION touch()",
    )
    .await;
    desk.sql("INSERT INTO orders VALUES (1, 'open'); UPDATE orders SET state = 'paid'").await;
    desk.versions("orders", "1", 2);
    let said = desk.refused(11, &["undo", "orders", "1", "v2", "--yes"]);
    assert!(said.contains("triggers: public.orders 1, touched: is 2 and not 0"), "{said}");
    assert!(said.contains("triggers: public.log: further rows were written: 1 added"), "{said}");
    assert_eq!(desk.ask("SELECT state || touched FROM orders").await, "paid1");
    desk.succeed(&["undo", "orders", "1", "v2"]);
    desk.succeed(&["undo", "orders", "1", "v2", "--yes", "--accept-triggers"]);
    assert_eq!(desk.ask("SELECT state || touched FROM orders").await, "open2");
}

/// What is asked for wrongly, or by the wrong login, is refused before anything runs.
#[tokio::test(flavor = "multi_thread")]
async fn an_undo_is_done_by_a_person_for_a_reason() {
    let desk = desk().await;
    desk.sql("INSERT INTO orders VALUES (1, 'open', 1, NULL); UPDATE orders SET state = 'paid'; TRUNCATE lines").await;
    desk.versions("orders", "1", 2);
    let daemon =
        desk.world.command(&["undo", "orders", "1", "v2", "--as", &desk.world.url, "--actor", "x", "--reason", "y"]);
    let said = String::from_utf8_lossy(&daemon.stderr).into_owned();
    assert!(daemon.status.code() == Some(2) && said.contains("the daemon's own role"), "{said}");
    assert!(desk.refused(2, &["undo", "orders", "1"]).contains("v2"));
    assert!(desk.refused(8, &["undo", "orders", "1", "v9"]).contains("no version v9, but 2"));
    assert!(desk.refused(8, &["undo", "xid:1"]).contains("no version of this transaction"));
    let said = desk.refused(11, &["undo", "orders", "1", "v2", "--fields", "nothing"]);
    assert!(said.contains("no column is called nothing"), "{said}");
    assert!(desk.refused(11, &["undo", "orders", "1", "v2", "--max-rows", "0"]).contains("--max-rows 1"));
    // Nothing is undone by a login for which constraints and triggers are off.
    let login = &desk.login;
    desk.sql(&format!("ALTER ROLE {login} SET session_replication_role = replica")).await;
    let said = desk.refused(11, &["undo", "orders", "1", "v2", "--yes"]);
    assert!(said.contains("session_replication_role of your login is replica"), "{said}");
    desk.sql(&format!("ALTER ROLE {login} RESET session_replication_role; REVOKE UPDATE ON orders FROM {login}")).await;
    let said = desk.refused(11, &["undo", "orders", "1", "v2", "--yes"]);
    assert!(said.contains("permission denied") && said.contains("grant your login"), "{said}");
}

/// The file does what the undo would have done, and fails where the row has changed.
#[tokio::test(flavor = "multi_thread")]
async fn the_statements_are_a_file_that_somebody_else_runs() {
    let desk = desk().await;
    desk.sql(
        "INSERT INTO orders VALUES (1, 'open', 1, E'a\\\\b$undo$'); UPDATE orders SET state = 'paid', note = NULL",
    )
    .await;
    desk.versions("orders", "1", 2);
    let file = desk.world.path("undo.sql");
    desk.succeed(&["undo", "orders", "1", "v2", "--sql", file.to_str().expect("a plain name")]);
    assert_eq!(desk.ask(ORDER).await, "paid|1.00|∅");
    let script = std::fs::read_to_string(&file).expect("a file");
    assert!(
        desk.refused(2, &["undo", "orders", "1", "v2", "--sql", file.to_str().expect("a plain name")])
            .contains("cannot be written")
    );
    assert!(script.starts_with("\\set ON_ERROR_STOP on\nBEGIN;"), "{script}");
    let by_psql = format!("\\i '{}'", file.display());
    desk.sql(&by_psql).await;
    assert_eq!(desk.ask(ORDER).await, r"open|1.00|a\b$undo$");
    let again = shared(15).await.try_execute(&desk.world.database, &by_psql);
    assert!(again.is_err_and(|error| error.to_string().contains("public.orders 1 is not as it was")));
}

/// A key that is unique no more names several rows: none of them is written.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_names_several_rows_is_refused() {
    let desk = desk().await;
    desk.sql("INSERT INTO orders VALUES (1, 'open', 1, NULL); UPDATE orders SET state = 'paid'").await;
    let versions = desk.versions("orders", "1", 2);
    desk.sql("ALTER TABLE orders DROP CONSTRAINT orders_pkey CASCADE; INSERT INTO orders VALUES (1, 'paid', 1, NULL)")
        .await;
    for version in &versions {
        let said = desk.refused(11, &["undo", position(version), "--yes"]);
        assert!(said.contains("public.orders 1 names more than one row"), "{said}");
    }
    assert_eq!(desk.ask("SELECT string_agg(state, ',') FROM orders").await, "paid,paid");
}

/// The file removes no row that came to a parent after it was written.
#[tokio::test(flavor = "multi_thread")]
async fn the_file_fails_where_a_cascade_would_touch_new_rows() {
    let desk = desk().await;
    desk.sql("INSERT INTO orders VALUES (1, 'open', 1, NULL)").await;
    desk.versions("orders", "1", 1);
    let file = desk.world.path("undo.sql");
    desk.succeed(&["undo", "orders", "1", "v1", "--sql", file.to_str().expect("a plain name")]);
    let script = std::fs::read_to_string(&file).expect("a file");
    let statements = script.lines().skip(1).collect::<Vec<_>>().join("\n");
    desk.sql("INSERT INTO lines VALUES (1, 1, 'a', 0)").await;
    let tried = shared(15).await.try_execute(&desk.world.database, &statements);
    assert!(tried.is_err_and(|error| error.to_string().contains("belong to public.orders 1")));
    assert_eq!(desk.ask("SELECT count(*)::text FROM lines").await, "1");
    desk.sql("DELETE FROM lines").await;
    desk.sql(&statements).await;
    assert_eq!(desk.ask("SELECT count(*)::text FROM orders").await, "0");
}

/// A row goes back over several versions at once, and comes back after it was removed.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_rolled_back_to_a_point() {
    let desk = desk().await;
    desk.sql("INSERT INTO orders VALUES (1, 'open', 1, NULL); UPDATE orders SET state = 'paid'; UPDATE orders SET total = 7; DELETE FROM orders").await;
    let versions = desk.versions("orders", "1", 4);
    assert!(desk.succeed(&["rollback", "orders", "1", "--to", "v1"]).contains("INSERT INTO public.orders"));
    desk.succeed(&["rollback", "orders", "1", "--to", "v2", "--yes"]);
    assert_eq!(desk.ask(ORDER).await, "paid|1.00|∅");
    // The row that was put back has numbers of its own.
    let back = desk.succeed(&["rollback", "orders", "1", "--to", position(&versions[3]), "--yes"]);
    assert_eq!(desk.ask(ORDER).await, "open|1.00|∅", "{back}");
    let said = desk.refused(8, &["rollback", "orders", "1", "--to", "v99"]);
    assert!(said.contains("no such version"), "{said}");
    desk.refused(8, &["rollback", "orders", "404", "--to", "v1"]);
    // Another row that has the key now is not the row that had it.
    desk.sql("DELETE FROM orders; INSERT INTO orders VALUES (1, 'other', 9, NULL)").await;
    desk.versions("orders", "1", 8);
    let said = desk.refused(11, &["rollback", "orders", "1", "--to", position(&versions[2])]);
    assert!(said.contains("another one was made with its key"), "{said}");
    desk.succeed(&["rollback", "orders", "1", "--to", position(&versions[2]), "--force"]);
}

/// A row that a TRUNCATE removed comes back.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_rolled_back_over_a_truncate() {
    let desk = desk().await;
    desk.sql("INSERT INTO orders VALUES (1, 'open', 1, NULL); TRUNCATE orders CASCADE").await;
    desk.versions("orders", "1", 2);
    desk.succeed(&["rollback", "orders", "1", "--to", "v1", "--yes"]);
    assert_eq!(desk.ask(ORDER).await, "open|1.00|∅");
}

/// Without old rows from the server an undo names what it lacks; a rollback needs only what versions recorded.
#[tokio::test(flavor = "multi_thread")]
async fn unknown_old_values_are_refused_by_name() {
    let desk = desk_with("CREATE TABLE t (id int PRIMARY KEY, a text, b text)").await;
    desk.sql("INSERT INTO t VALUES (1, 'x', 'y'); UPDATE t SET a = 'z'").await;
    desk.versions("t", "1", 2);
    let said = desk.refused(11, &["undo", "t", "1", "v2", "--yes"]);
    assert!(said.contains("old values are not known of a, b") && said.contains("--replica-identity full"), "{said}");
    desk.succeed(&["rollback", "t", "1", "--to", "v1", "--yes"]);
    assert_eq!(desk.ask("SELECT a || b FROM t").await, "xy");
    desk.sql("UPDATE t SET b = 'w'; DELETE FROM t").await;
    let versions = desk.versions("t", "1", 5);
    desk.refused(11, &["undo", "t", "1", "v5", "--yes"]);
    desk.succeed(&["undo", "t", "1", "v5", "--yes", "--allow-derived"]);
    assert_eq!(desk.ask("SELECT a || b FROM t").await, "xw");
    let tried = desk.succeed(&["undo", position(&versions[1]), "--allow-derived"]);
    assert!(tried.contains("UPDATE public.t SET b = 'y'::text WHERE"), "{tried}");
}

/// A derived value goes into its column, also where no version shows the column's new name yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_derived_value_follows_a_rename() {
    let desk = desk_with("CREATE TABLE t (id int PRIMARY KEY, a text, b text)").await;
    desk.sql("INSERT INTO t VALUES (1, 'x', 'y'); UPDATE t SET a = 'z', b = 'w'").await;
    desk.versions("t", "1", 2);
    desk.sql("ALTER TABLE t RENAME a TO c").await;
    desk.succeed(&["undo", "t", "1", "v2", "--yes", "--allow-derived"]);
    assert_eq!(desk.ask("SELECT c || b FROM t").await, "xy");
}

/// Columns are followed through renames; one that is gone is named, one that is new gets its default, and identities and
/// generated columns are put back as far as the server lets.
#[tokio::test(flavor = "multi_thread")]
async fn tables_that_were_altered_since_are_put_back_as_far_as_they_can_be() {
    let desk = desk_with(
        "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a text, gone text, twice int GENERATED ALWAYS AS (id * 2) STORED); \
         ALTER TABLE t REPLICA IDENTITY FULL",
    )
    .await;
    desk.sql(&format!(
        "GRANT SELECT ON SEQUENCE t_id_seq TO {}; INSERT INTO t (id, a, gone) OVERRIDING SYSTEM VALUE VALUES (40, 'x', 'y'); \
         UPDATE t SET a = 'z', gone = 'w'",
        desk.login
    ))
    .await;
    desk.versions("t", "40", 2);
    desk.sql(
        "ALTER TABLE t RENAME a TO renamed; ALTER TABLE t DROP gone; ALTER TABLE t ADD fresh int NOT NULL DEFAULT 7",
    )
    .await;
    let said = desk.refused(11, &["undo", "t", "40", "v2", "--fields", "fresh"]);
    assert!(said.contains("nothing to put back") && said.contains("public.t.gone: not there any more"), "{said}");
    let said = desk.succeed(&["undo", "t", "40", "v2", "--yes"]);
    assert!(said.contains("cannot be put back: public.t has no gone any more"), "{said}");
    let row = "SELECT concat_ws('|', id, renamed, twice, fresh) FROM t";
    assert_eq!(desk.ask(row).await, "40|x|80|7");
    desk.sql("ALTER TABLE t DROP fresh; DELETE FROM t; ALTER TABLE t ADD fresh int NOT NULL DEFAULT 9").await;
    desk.versions("t", "40", 4);
    let said = desk.succeed(&["undo", "t", "40", "v4", "--yes"]);
    assert!(said.contains("OVERRIDING SYSTEM VALUE"), "{said}");
    assert!(said.contains("left alone: public.t.fresh (not in the trail"), "{said}");
    assert!(said.contains("warning: sequence public.t_id_seq is behind 40"), "{said}");
    assert_eq!(desk.ask(row).await, "40|x|80|9");
    // The type has become narrower than the old value.
    desk.sql("UPDATE t SET renamed = 'much longer'; UPDATE t SET renamed = 'b'; ALTER TABLE t ALTER renamed TYPE int USING 1").await;
    desk.versions("t", "40", 7);
    let said = desk.refused(11, &["undo", "t", "40", "v3", "--yes"]);
    assert!(said.contains("do not take the values") && !said.contains("much longer"), "{said}");
}

/// A value that its column has become too narrow for is neither shortened nor rounded.
#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_not_cut_by_a_narrower_column() {
    let desk = desk_with(
        "CREATE TABLE t (id int PRIMARY KEY, a varchar(20), n numeric(8, 2)); ALTER TABLE t REPLICA IDENTITY FULL",
    )
    .await;
    desk.sql(
        "INSERT INTO t VALUES (1, 'much longer', 1); UPDATE t SET a = 'b'; UPDATE t SET n = 1.25; UPDATE t SET n = 2",
    )
    .await;
    desk.versions("t", "1", 4);
    desk.sql("ALTER TABLE t ALTER a TYPE varchar(4), ALTER n TYPE numeric(8, 1)").await;
    let said = desk.refused(11, &["undo", "t", "1", "v2", "--yes"]);
    assert!(said.contains("column a is cut by its type") && !said.contains("much longer"), "{said}");
    let said = desk.refused(11, &["undo", "t", "1", "v4", "--yes"]);
    assert!(said.contains("column n is cut by its type"), "{said}");
    assert_eq!(desk.ask("SELECT concat_ws('|', a, n) FROM t").await, "b|2.0");
}

/// Who undoes something for whom, and why, is in the access log before anything is written.
#[tokio::test(flavor = "multi_thread")]
async fn an_undo_is_in_the_access_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let keyring = folder.path().join("keyring");
    audit_keys::append_version(&keyring).expect("a key");
    let server = shared(15).await;
    let keys = format!(
        "[protection]\ndefaults = false\n[protection.keys.pii]\nmaster = {{ type = \"local\", file = \"{}\" }}\n",
        keyring.display()
    );
    let world = World::on(server).full(true).without_lake().unwitnessed().tables(RULES).sql(TABLES).protection(&keys);
    let desk = desk_of(server, world.build().await);
    desk.sql("INSERT INTO orders VALUES (1, 'open', 1, NULL); UPDATE orders SET state = 'paid', total = 2").await;
    desk.versions("orders", "1", 2);
    let hot = connect(&desk.world.hot_url).await;
    let log = "SELECT coalesce(string_agg(concat_ws('|', action, requested_by, purpose, table_name, key, field), ';'), '') FROM cdc_audit.access_log";
    desk.succeed(&["undo", "orders", "1", "v2"]);
    assert_eq!(hot.query_one(log, &[]).await.expect("the log").get::<_, String>(0), "");
    desk.succeed(&["undo", "orders", "1", "v2", "--yes"]);
    let logged: String = hot.query_one(log, &[]).await.expect("the log").get(0);
    assert_eq!(logged, "undo|boss|by mistake|public.orders|1|state,total");
    hot.batch_execute("ALTER TABLE cdc_audit.access_log RENAME TO gone").await.expect("a renamed table");
    desk.refused(1, &["undo", "orders", "1", "v3", "--yes"]);
    assert_eq!(desk.ask(ORDER).await, "open|1.00|∅");
}

/// A commit whose answer was lost has taken place: it is found, and nothing is done a second time.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_was_lost_is_looked_for() {
    // A commit waits for a standby that there is not, for the operator alone.
    let server = Postgres::builder(15)
        .setting("synchronous_standby_names", "nobody")
        .setting("synchronous_commit", "local")
        .start();
    let (_, hot) = shared(15).await.new_database();
    let world = World::on(&server)
        .full(true)
        .without_lake()
        .unwitnessed()
        .tables(RULES)
        .sql(TABLES)
        .hot_url(&hot)
        .build()
        .await;
    let database = world.database.clone();
    let desk = desk_of(&server, world);
    server.execute(
        &database,
        &format!(
            "ALTER ROLE {} SET synchronous_commit = on; INSERT INTO orders VALUES (1, 'open', 1, NULL); UPDATE orders SET state = 'paid'",
            desk.login
        ),
    );
    desk.versions("orders", "1", 2);
    let end = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND usename = '{}'",
        desk.login
    );
    let said = std::thread::scope(|scope| {
        let undo = scope.spawn(|| desk.succeed(&["undo", "orders", "1", "v2", "--yes"]));
        audit_testkit::eventually("a commit that waits", || server.execute(&database, &end).trim() == "1");
        undo.join().expect("an undo")
    });
    assert!(
        said.contains("committed, and recorded as:") && said.contains("State changed from paid to open."),
        "{said}"
    );
    assert_eq!(desk.ask(ORDER).await, "open|1.00|∅");
}
