use std::ops::Deref;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use audit_keys::append_version;
use audit_testkit::{connect, shared};
use cdc_audit_tests::world::World;
use serde_json::Value;

/// A world with its keys.
struct Ground {
    world: World,
    _keys: tempfile::TempDir,
}

impl Deref for Ground {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

/// Orders of which old rows are sent, notes of which they are not, and people with protected columns.
async fn world(rest: &str) -> Ground {
    let keys = tempfile::tempdir().unwrap();
    let (keyring, hash_key) = (keys.path().join("keyring"), keys.path().join("hash key"));
    append_version(&keyring).unwrap();
    std::fs::write(&hash_key, "0123456789abcdef0123456789abcdef").unwrap();
    std::fs::set_permissions(&hash_key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let server = shared(15).await;
    let tables = "CREATE TABLE orders (id int PRIMARY KEY, state text, total numeric(10,2), due date); ALTER TABLE orders REPLICA IDENTITY FULL; \
                  CREATE TABLE notes (id int PRIMARY KEY, state text); \
                  CREATE TABLE people (id int PRIMARY KEY, email text, ssn text, phone text); ALTER TABLE people REPLICA IDENTITY FULL";
    let rules = "[[tables]]\nname = 'public.*'\n[[tables]]\nname = 'public.notes'\nitem_type = 'Note'\n\
                 [[tables]]\nname = 'public.people'\n\
                 protect = { email = 'hash', ssn = 'partial', phone = [{ method = 'partial' }, { method = 'token', key = 'pii' }] }\n";
    let protection = format!("[protection]\ndefaults = false\nhash_key = {{ file = '{}' }}\n", hash_key.display());
    let sections =
        format!("[protection.keys.pii]\nmaster = {{ type = 'local', file = '{}' }}\n{rest}", keyring.display());
    let world = World::on(server).sql(tables).tables(rules).protection(&protection).sections(&sections).build().await;
    let context = |actor: &str, reason: &str| {
        format!(
            "SELECT pg_logical_emit_message(true, 'cdc-audit', '{{\"actor_id\": \"{actor}\", \"reason\": \"{reason}\", \"request_id\": \"req-{actor}\"}}')"
        )
    };
    server.execute(
        &world.database,
        &format!(
            "INSERT INTO orders VALUES (1, 'open', 5, '2026-01-31'), (2, 'open', 1500, NULL), (3, NULL, 9, NULL); \
             BEGIN; {ann}; UPDATE orders SET state = 'paid' WHERE id = 1; UPDATE orders SET state = 'paid', total = 1500.5 WHERE id = 2; \
             INSERT INTO notes VALUES (1, 'open'); COMMIT; \
             BEGIN; {bob}; UPDATE orders SET state = 'null' WHERE id = 3; DELETE FROM orders WHERE id = 2; COMMIT; \
             UPDATE notes SET state = 'paid' WHERE id = 1; UPDATE notes SET state = 'late' WHERE id = 1; \
             INSERT INTO people VALUES (1, 'ann@example.org', '123-45-6789', '+39061'), (2, 'bob@example.org', '987-65-4321', '+39062')",
            ann = context("31", "bank transfer"),
            bob = context("32", "Clean up")
        ),
    );
    world.catch_up().await;
    Ground { world, _keys: keys }
}

/// `orders 1 updated`, a line for each version that is found: in each sink alone, and in both as one.
fn found(world: &World, words: &[&str]) -> Vec<String> {
    let told = [&["--from", "hot"][..], &["--from", "archive"], &[]].map(|from| {
        let all: Vec<&str> = ["search", "--json"].iter().chain(from).chain(words).copied().collect();
        let line = |line: &str| {
            let record: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            let text = |name: &str| record[name].as_str().unwrap_or("-").to_owned();
            format!("{} {} {}", text("table_name").trim_start_matches("public."), text("key"), text("event"))
        };
        world.succeed(&all).lines().map(line).collect::<Vec<String>>()
    });
    assert_eq!(told[0], told[1], "{words:?}: hot and lake");
    assert_eq!(told[0], told[2], "{words:?}: hot, and hot and lake as one");
    let [hot, ..] = told;
    hot
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_find_the_same_in_both_sinks_newest_first() {
    let world = world("").await;
    let check = |words: &[&str], expected: &[&str]| assert_eq!(found(&world, words), expected, "{words:?}");
    check(&["orders", "state:open->paid"], &["orders 2 updated", "orders 1 updated"]);
    check(&["orders", "--field", "state", "--old", "open", "--new", "paid"], &["orders 2 updated", "orders 1 updated"]);
    check(&["orders", "state:->paid", "actor:31,99"], &["orders 2 updated", "orders 1 updated"]);
    // From NULL to the text `null`; what was created was not NULL before.
    check(&["orders", "state:null->"], &["orders 3 updated"]);
    check(&["orders", "state:->\"null\""], &["orders 3 updated"]);
    check(&["orders", "state:->null"], &["orders 3 created"]);
    check(&["orders", "total>1000", "-event:deleted"], &["orders 2 updated", "orders 2 created"]);
    check(&["orders", "total:1500"], &["orders 2 updated", "orders 2 created"]);
    check(&["orders", "due:2026-01"], &["orders 1 created"]);
    check(&["orders", "total:", "event:updated"], &["orders 2 updated"]);
    check(&["orders", "state~AI", "key:1"], &["orders 1 updated"]);
    check(&["reason~clean"], &["orders 2 deleted", "orders 3 updated"]);
    check(&["word:BANK", "-table:orders"], &["notes 1 created"]);
    check(&["request:req-32", "event:deleted"], &["orders 2 deleted"]);
    check(&["orders", "actor:null"], &["orders 3 created", "orders 2 created", "orders 1 created"]);
    check(&["Note", "event:created"], &["notes 1 created"]);
    check(&["orders", "until:yesterday"], &[]);
    check(&["orders", "since:1h", "event:deleted"], &["orders 2 deleted"]);
    check(&["orders", "--rows"], &["orders 2 deleted", "orders 3 updated", "orders 1 updated"]);
    check(&["--limit", "1", "orders"], &["orders 2 deleted"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_follow_each_other_and_counts_add_up() {
    let world = world("").await;
    for sink in ["hot", "archive"] {
        let all = world.succeed(&["search", "orders", "--from", sink, "--json"]);
        let (mut items, mut cursor): (Vec<Value>, Option<String>) = (Vec::new(), None);
        loop {
            let mut words = vec!["search", "orders", "--from", sink, "--limit", "2", "--page"];
            words.extend(cursor.iter().flat_map(|cursor| ["--before", cursor]));
            let page: Value = serde_json::from_str(&world.succeed(&words)).expect("JSON");
            let new = page["items"].as_array().expect("items");
            assert!(new.len() <= 2, "{page}");
            items.extend(new.iter().cloned());
            match page["next"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => break,
            }
        }
        let lines: Vec<Value> = all.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(items, lines, "{sink}");
        let other =
            world.command(&["search", "notes", "--from", sink, "--before", cursor.as_deref().expect("a cursor")]);
        assert_eq!(other.status.code(), Some(2));
        assert_eq!(world.succeed(&["search", "orders", "--from", sink, "--count"]).trim(), lines.len().to_string());
        let grouped = world.succeed(&["search", "orders", "--from", sink, "--group-by", "actor,event", "--json"]);
        assert!(grouped.contains(r#"{"actor_id":"31","event":"updated","count":2}"#), "{grouped}");
        assert!(grouped.contains(r#"{"actor_id":null,"event":"created","count":3}"#), "{grouped}");
        let fields =
            world.succeed(&["search", "orders", "event:updated", "--from", sink, "--group-by", "field", "--csv"]);
        assert_eq!(fields, "field,count\nstate,3\ntotal,1\n");
    }
}

/// A version of which nobody knows what it changed is counted, and neither shown nor left out in silence.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_told_is_counted() {
    let world = world("").await;
    for from in [&["--from", "hot"][..], &["--from", "archive"], &[]] {
        let words: Vec<&str> = ["search", "notes", "state:open->paid", "--json"].iter().chain(from).copied().collect();
        let output = world.command(&words);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.stdout.is_empty(), "{from:?}");
        // The other update made it `late`, so it cannot have made it `paid`.
        assert!(told.contains("1 version could not be told"), "{from:?}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_that_cannot_be_answered_are_refused() {
    let world = world("").await;
    for (words, expected) in [
        (vec!["nothing"], "write word:nothing"),
        (vec!["orders", "sate:paid"], "no table that is searched has a column sate"),
        (vec!["orders", "total>many"], "is not a value of column total"),
        (vec!["orders", "since:soon"], "is not a time"),
        (vec!["orders", "event:gone"], "the events are created"),
        (vec!["people", "ssn:123-45-6789"], "is protected with `partial`"),
        (vec!["people", "email~ann"], "is protected with `hash`"),
        (vec!["people", "email>a"], "is protected with `hash`"),
        (vec!["@refunds"], "add [questions.refunds]"),
    ] {
        let all: Vec<&str> = ["search"].iter().chain(&words).copied().collect();
        let output = world.command(&all);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{words:?}: {told}");
        assert!(told.contains(expected), "{words:?}: {told}");
    }
    let code = |words: &[&str]| world.command(words).status.code();
    assert_eq!(code(&["search", "orders", "actor:99", "-q"]), Some(8));
    assert_eq!(code(&["search", "orders", "actor:31", "-q"]), Some(0));
    assert_eq!(code(&["search", "orders", "actor:99"]), Some(0));
}

/// Who may use the keys finds protected values by their plain text; each such search is in the access log, without the
/// value.
#[tokio::test(flavor = "multi_thread")]
async fn protected_values_are_found_whole_and_the_search_is_logged() {
    let world = world("").await;
    let hot = connect(&world.hot_url).await;
    let log = "SELECT string_agg(field || ' ' || (key_id IS NOT NULL)::text, ', ' ORDER BY id) FROM cdc_audit.access_log \
               WHERE action = 'search' AND table_name = 'public.people' AND os_user <> ''";
    assert_eq!(found(&world, &["people", "email:ann@example.org"]), ["people 1 created"]);
    assert_eq!(found(&world, &["people", "phone:+39062"]), ["people 2 created"]);
    assert_eq!(found(&world, &["people", "phone:->+39062"]), ["people 2 created"]);
    assert_eq!(found(&world, &["people", "email:nobody@example.org"]), Vec::<String>::new());
    let logged: String = hot.query_one(log, &[]).await.unwrap().get(0);
    let thrice = |field: &str| format!("{field}, {field}, {field}");
    let expected = ["email false", "phone true", "phone true", "email false"].map(thrice).join(", ");
    assert_eq!(logged, expected);
    // Without the log there is no answer.
    hot.batch_execute("ALTER TABLE cdc_audit.access_log RENAME TO gone").await.unwrap();
    let output = world.command(&["search", "people", "email:ann@example.org", "--json"]);
    assert!(!output.status.success() && output.stdout.is_empty());
}

/// A job that asks again and again reads each version once.
#[tokio::test(flavor = "multi_thread")]
async fn a_saved_question_is_answered_once_for_each_version() {
    let world = world("[questions.paid]\nsearch = 'orders state:->paid'\n").await;
    let state = world.path("state");
    let ask = |words: &[&str]| {
        let mut command = Command::new(audit_testkit::program());
        let output = command.args(words).arg("--config").arg(&world.config).env("XDG_STATE_HOME", &state).output();
        let output = output.expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).lines().count()
    };
    assert_eq!(ask(&["search", "@paid", "--json"]), 2);
    assert_eq!(ask(&["search", "@paid", "key:1", "--json"]), 1);
    for expected in [2, 0] {
        assert_eq!(ask(&["search", "@paid", "--since-last", "nightly", "--json"]), expected);
    }
}

/// A transaction is shown whole, over all tables, in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_shown_whole() {
    let world = world("").await;
    for sink in ["hot", "archive"] {
        let one = world.succeed(&["search", "orders", "key:1", "state:->paid", "--from", sink, "--json"]);
        let one: Value = serde_json::from_str(&one).expect("a record");
        let (xid, position) = (format!("xid:{}", one["xid"]), one["position"].as_str().expect("a position"));
        let told = [&xid, position].map(|which| world.succeed(&["tx", which, "--from", sink, "--json"]));
        assert_eq!(told[0], told[1]);
        let tx: Value = serde_json::from_str(&told[0]).expect("JSON");
        let rows: Vec<String> = tx["versions"]
            .as_array()
            .expect("versions")
            .iter()
            .map(|version| {
                format!(
                    "{} {} {}",
                    version["table_name"].as_str().expect("a name"),
                    version["key"].as_str().expect("a key"),
                    version["event"].as_str().expect("an event")
                )
            })
            .collect();
        assert_eq!(rows, ["public.orders 1 updated", "public.orders 2 updated", "public.notes 1 created"]);
        assert_eq!(
            tx["tables"].to_string(),
            r#"[{"table_name":"public.notes","created":1},{"table_name":"public.orders","updated":2}]"#
        );
        assert_eq!(tx["actor_id"], "31");
        // Of the other two versions of that transaction.
        let shown = world.succeed(&["search", "orders", "key:1", "state:->paid", "--from", sink]);
        assert!(shown.contains("state open → paid") && shown.contains("(+2)") && shown.contains("31?"), "{shown}");
        let last = world.succeed(&["tx", "last", "--table", "Note", "--from", sink]);
        assert!(last.contains("public.notes: 1 updated"), "{last}");
        let both = world.succeed(&["tx", &xid, "--json"]);
        let rows = |text: &str| serde_json::from_str::<Value>(text).expect("JSON")["tables"].clone();
        assert_eq!(rows(&both), tx["tables"]);
        assert!(world.succeed(&["search", "orders", "key:1", "state:->paid"]).contains("(+2)"));
        assert_eq!(world.command(&["tx", "xid:1", "--from", sink]).status.code(), Some(8));
        assert_eq!(world.command(&["tx", "7311", "--from", sink]).status.code(), Some(2));
    }
}

/// What is read for an answer is told after it, by every command that answers a question.
#[tokio::test(flavor = "multi_thread")]
async fn every_question_is_explained() {
    let world = world("").await;
    let questions: [&[&str]; 8] = [
        &["search", "orders"],
        &["history", "orders", "1"],
        &["show", "orders", "1"],
        &["diff", "orders", "1", "v1", "now"],
        &["blame", "orders", "1"],
        &["tx", "last"],
        &["report", "--since", "1d"],
        &["as-of", "now", "orders"],
    ];
    for question in questions {
        let explained = world.command(&[question, &["--explain"]].concat());
        let told = String::from_utf8(explained.stderr).unwrap();
        assert!(explained.status.success() && !explained.stdout.is_empty(), "{question:?}: {told}");
        let (_, told) = told.rsplit_once("hot:").unwrap_or_else(|| panic!("{question:?}: {told}"));
        assert!(told.contains(" statements, ") && told.contains("archive: "), "{question:?}: {told}");
    }
    let sinks = |words: &[&str]| {
        let answer = world.command(&[words, &["--json", "--explain"]].concat());
        let told = String::from_utf8(answer.stderr).unwrap();
        let last: Value = serde_json::from_str(told.lines().last().unwrap()).unwrap_or_else(|_| panic!("{told}"));
        last["sinks"].as_array().unwrap().clone()
    };
    let [hot] = sinks(&["search", "orders", "--from", "hot"]).try_into().unwrap();
    let searching = hot["statements"].as_array().unwrap().iter().find(|asked| asked["doing"] == "searching").unwrap();
    assert_eq!((&searching["times"], &searching["rows"]), (&Value::from(1), &Value::from(7)), "{hot}");
    assert!(!searching["reads"].as_object().unwrap().is_empty(), "{hot}");
    let [archive] = sinks(&["search", "orders", "actor:32", "--from", "archive"]).try_into().unwrap();
    assert!(archive["files"].as_u64() > Some(0) && archive["bytes"].as_u64() > Some(0), "{archive}");
    let [nobody] = sinks(&["search", "orders", "actor:zzz", "--from", "archive"]).try_into().unwrap();
    assert_eq!((&nobody["files"], &nobody["row_groups"]), (&Value::from(0), &Value::from(0)), "{nobody}");
    assert!(nobody["files_skipped"].as_u64() > Some(0), "{nobody}");
}
