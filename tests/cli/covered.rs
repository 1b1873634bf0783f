use audit_testkit::shared;
use cdc_audit_tests::world::World;
use serde_json::Value;

const TABLES: &str = "CREATE TABLE orders (id int PRIMARY KEY, state text); ALTER TABLE orders REPLICA IDENTITY FULL; \
                      INSERT INTO orders VALUES (1, 'old'), (2, 'old')";

/// Questions of every kind, about a row that is there.
const QUESTIONS: [&[&str]; 11] = [
    &["history", "orders", "1"],
    &["show", "orders", "1"],
    &["diff", "orders", "1", "v-1"],
    &["blame", "orders", "1"],
    &["search", "orders"],
    &["search", "orders", "--count"],
    &["search", "--group-by", "table"],
    &["tx", "last"],
    &["report"],
    &["report", "--table", "orders", "--key", "1"],
    &["activity", "--table", "orders"],
];

async fn world() -> World {
    let world = World::on(shared(15).await).full(true).sql(TABLES).unwitnessed().build().await;
    shared(15)
        .await
        .execute(&world.database, "UPDATE orders SET state = 'a'; UPDATE orders SET state = 'b' WHERE id = 1");
    world.catch_up().await;
    world
}

/// Exit code, answer and what was said of it.
fn ask(world: &World, question: &[&str], arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = world.command(&[question, arguments].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn lose_a_stretch(world: &World, until: &str) {
    world.set_up();
    world.succeed(&["run", "--accept-gap", "--until", until]);
}

/// The coverage of each form for programs.
fn coverage(world: &World, question: &[&str], form: &str) -> Value {
    let (_, told, said) = ask(world, question, &[form]);
    let answer: Value = serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told}{said}"));
    answer["coverage"].clone()
}

/// Every answer says in one line what it covers; if something may be missing, `--strict` makes that an error.
#[tokio::test(flavor = "multi_thread")]
async fn every_answer_says_what_it_covers() {
    let world = world().await;
    for question in QUESTIONS {
        let (code, _, said) = ask(&world, question, &["--strict"]);
        assert!(code == Some(0) && said.contains("from hot + archive · up to 0001:"), "{question:?}: {code:?} {said}");
        assert!(said.contains(" · complete"), "{question:?}: {said}");
    }
    shared(15).await.execute(&world.database, &format!("SELECT pg_drop_replication_slot('{}')", world.slot));
    let until = world.wal_end().await;
    lose_a_stretch(&world, &until);
    for question in QUESTIONS {
        let (code, told, said) = ask(&world, question, &["--strict"]);
        assert!(code == Some(9) && !told.is_empty(), "{question:?}: {code:?} {said}");
        assert!(said.contains("incomplete: changes were lost in a gap"), "{question:?}: {said}");
        assert_eq!(ask(&world, question, &[]).0, Some(0), "{question:?}");
    }
    let forms: [(&[&str], &str); 7] = [
        (QUESTIONS[0], "--page"),
        (QUESTIONS[1], "--json"),
        (QUESTIONS[4], "--page"),
        (QUESTIONS[5], "--page"),
        (QUESTIONS[6], "--page"),
        (QUESTIONS[7], "--json"),
        (QUESTIONS[8], "--json"),
    ];
    for (question, form) in forms {
        let coverage = coverage(&world, question, form);
        assert_eq!(coverage["complete"], false, "{question:?}: {coverage}");
        assert_eq!(coverage["gaps"].as_array().map(Vec::len), Some(1), "{question:?}: {coverage}");
        assert_eq!(coverage["sinks"].as_array().map(Vec::len), Some(2), "{question:?}: {coverage}");
    }
    // What is not there may have been lost.
    assert_eq!(ask(&world, &["show", "orders", "7"], &["--strict"]).0, Some(9));
    assert_eq!(ask(&world, &["show", "orders", "7"], &[]).0, Some(8));
    assert_eq!(ask(&world, &["search", "key:7", "-q"], &["--strict"]).0, Some(9));
    // The gap came after this span, and is none of its answer's.
    let (code, _, said) = ask(&world, &["report", "--since", "2001-01-01", "--until", "2002-01-01"], &["--strict"]);
    assert!(code == Some(0) && said.contains("complete"), "{said}");
    let export = world.path("export");
    let (code, _, said) = ask(&world, &["export", "--to", export.to_str().expect("a plain name")], &["--strict"]);
    assert!(code == Some(9) && said.contains("incomplete: changes were lost in a gap"), "{said}");
}

/// What hot tables can answer they answer without the lake, and the answer says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_lake_that_cannot_be_read_is_left_out() {
    let world = world().await;
    std::fs::rename(&world.lake, world.path("elsewhere")).expect("the lake is away");
    for question in QUESTIONS {
        let (code, told, said) = ask(&world, question, &[]);
        assert!(code == Some(0) && !told.is_empty(), "{question:?}: {code:?} {said}");
        assert!(said.contains("from hot · ") && said.contains("incomplete: archive could not be read: "), "{said}");
        assert_eq!(ask(&world, question, &["--strict"]).0, Some(9), "{question:?}");
        assert_eq!(ask(&world, question, &["--from", "hot", "--strict"]).0, Some(0), "{question:?}");
    }
    // An export, a series and an undo are not made from a part.
    let export = world.path("export");
    let to = export.to_str().expect("a plain name");
    assert_eq!(ask(&world, &["export", "--to", to], &[]).0, Some(1));
    assert_eq!(ask(&world, &["search", "--since-last", "never-begun"], &[]).0, Some(1));
}

/// Versions have numbers from the first one; where that is only the first one of a sink, the answer says so.
#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_begin_with_a_sink_are_named() {
    let world = world().await;
    let numbered = |arguments: &[&str]| {
        let (_, _, said) = ask(&world, &["history", "orders", "1"], arguments);
        said.contains("versions are numbered from the first one that hot has")
    };
    assert!(numbered(&["--from", "hot"]) && !numbered(&[]));
    shared(15).await.execute(&world.database, "INSERT INTO orders VALUES (9, 'new')");
    world.catch_up().await;
    let (_, _, said) = ask(&world, &["history", "orders", "9"], &["--from", "hot"]);
    assert!(!said.contains("numbered"), "it begins with `created`: {said}");
}

/// The head of an answer repeats it, whatever came later.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_repeats_an_answer() {
    let world = world().await;
    let hot = world.hot().await;
    let until = hot.query_one("SELECT to_char(now() + interval '1 hour', 'YYYY-MM-DD HH24:MI')", &[]);
    let until: String = until.await.expect("a time").get(0);
    let questions: [&[&str]; 4] = [
        &["search", "orders", "--page"],
        &["search", "--count", "--page"],
        &["report", "--json", "--since", "2001-01-01", "--until", &until],
        &["report", "--table", "orders", "--key", "1", "--json", "--since", "2001-01-01", "--until", &until],
    ];
    // The sinks' heads move on without any version.
    let told = |question: &[&str], arguments: &[&str]| {
        let answer: Value = serde_json::from_str(&ask(&world, question, arguments).1).expect("JSON");
        let mut asked = answer.clone();
        for moves in ["coverage", "head"] {
            asked.as_object_mut().expect("an object").remove(moves);
        }
        (asked, answer["coverage"]["head"].as_str().expect("a head").to_owned())
    };
    let first: Vec<(Value, String)> = questions.iter().map(|question| told(question, &[])).collect();
    shared(15).await.execute(&world.database, "UPDATE orders SET state = 'later'");
    world.catch_up().await;
    for (question, (answer, head)) in questions.iter().zip(&first) {
        let (repeated, again) = told(question, &["--head", head]);
        assert_eq!((&repeated, &again), (answer, head), "{question:?}");
        assert_ne!(told(question, &[]).0, *answer, "{question:?}");
        let (code, _, said) = ask(&world, question, &["--strict", "--head", "0001:ffffffff00000000:0000000000"]);
        assert!(code == Some(9) && said.contains("no sink has reached 0001:ffffffff00000000"), "{question:?}: {said}");
    }
}
