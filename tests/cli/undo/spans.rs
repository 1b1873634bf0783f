//! What somebody did in a span of time, with what came later.

use super::*;

const ALL: &str = "SELECT concat_ws(' ', (SELECT string_agg(concat_ws('|', id, state, note), ';' ORDER BY id) FROM orders), \
    (SELECT string_agg(concat_ws('|', order_id, line), ';') FROM lines), (SELECT string_agg(concat_ws('|', id, order_id), ';') FROM parts))";

/// Ann did four things, and others went on from there.
async fn desk_with_later_changes() -> Desk {
    let tables = format!(
        "{TABLES}; CREATE TABLE parts (id int PRIMARY KEY, order_id int CONSTRAINT parts_order REFERENCES orders); \
         ALTER TABLE parts REPLICA IDENTITY FULL"
    );
    let desk = desk_with(&tables).await;
    let by = |actor: &str, statements: &str| {
        format!("BEGIN; SELECT cdc_audit.set_context('{{\"actor_id\": \"{actor}\"}}'); {statements}; COMMIT;")
    };
    desk.sql(
        &[
            "INSERT INTO orders VALUES (1, 'open', 1, NULL), (2, 'open', 1, NULL), (3, 'open', 1, NULL);".to_owned(),
            by("ann", "UPDATE orders SET state = 'paid'"),
            by("eve", "UPDATE orders SET note = 'eve' WHERE id = 1; UPDATE orders SET state = 'sent' WHERE id = 2"),
            by("ann", "INSERT INTO orders VALUES (4, 'new', 1, NULL)"),
        ]
        .concat(),
    )
    .await;
    desk.versions("orders", "4", 1);
    desk
}

/// What an actor did is undone; rows that others changed since are refused, kept or overwritten, as is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_actor_did_in_a_span_is_undone() {
    let desk = desk_with_later_changes().await;
    let span = ["undo", "actor:ann", "since:1d"];
    let with = |more: &[&'static str]| [&span[..], more].concat();
    let said = desk.refused(11, &with(&["--yes"]));
    assert!(
        said.contains("| public.orders 2") && !said.contains("| public.orders 1") && said.contains("eve"),
        "{said}"
    );
    desk.refused(8, &["undo", "actor:nobody", "since:1d"]);
    assert!(desk.refused(2, &["undo", "actor:ann", "until:1d"]).contains("from when on"));
    assert!(desk.refused(2, &["undo", "actor:ann", "since:1d", "state:paid"]).contains("not chosen by values"));
    assert!(desk.refused(8, &["undo", "actor:ann", "since:2d", "until:1d"]).contains("no such versions"));
    desk.succeed(&with(&["--keep-later"]));
    let forced = desk.succeed(&with(&["--force"]));
    assert!(forced.contains("SET state = 'open'::text WHERE id = '2'::integer"), "{forced}");
    let kept = desk.succeed(&with(&["--keep-later", "--yes"]));
    assert!(kept.contains("kept: public.orders 2, state: the value was changed later"), "{kept}");
    assert_eq!(desk.ask(ALL).await, "1|open|eve;2|sent;3|open");
}

/// What others did between two changes of an actor is in the way too.
#[tokio::test(flavor = "multi_thread")]
async fn what_others_did_between_is_kept_refused_or_overwritten() {
    let desk = desk_with_later_changes().await;
    desk.sql(
        "BEGIN; SELECT cdc_audit.set_context('{\"actor_id\": \"ann\"}'); UPDATE orders SET state = 'back' WHERE id = 2; COMMIT",
    )
    .await;
    desk.versions("orders", "2", 4);
    let said = desk.refused(11, &["undo", "actor:ann", "since:1d", "--yes"]);
    assert!(said.contains("state of public.orders 2: the value was changed between the versions"), "{said}");
    desk.succeed(&["undo", "actor:ann", "since:1d", "--yes", "--keep-later"]);
    assert_eq!(desk.ask(ALL).await, "1|open|eve;2|back;3|open");
}

/// With what came later, everything that follows from it goes too, also rows that belong to it; and all of it comes back.
#[tokio::test(flavor = "multi_thread")]
async fn what_came_later_is_listed_and_undone_too() {
    let desk = desk_with_later_changes().await;
    desk.sql(
        "INSERT INTO lines VALUES (4, 1, 'a', 1); INSERT INTO parts VALUES (7, NULL); UPDATE parts SET order_id = 4",
    )
    .await;
    desk.versions("parts", "7", 2);
    let before = desk.ask(ALL).await;
    let said = desk.refused(11, &["undo", "actor:ann", "since:1d", "--keep-later"]);
    assert!(said.contains("lines_order_id_fkey") && said.contains("--with-later"), "{said}");
    let output = desk.command(&["undo", "actor:ann", "since:1d", "--with-later"]);
    let listed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{listed}");
    for row in ["public.orders 2 was updated by eve", "public.lines [4,1] was created", "public.parts 7 was updated"] {
        assert!(listed.contains(row), "{row}: {listed}");
    }
    assert!(!listed.contains("public.parts 7 was created"), "{listed}");
    assert_eq!(desk.ask(ALL).await, before);
    let done = desk.succeed(&["undo", "actor:ann", "since:1d", "--with-later", "--yes", "--json"]);
    assert_eq!(desk.ask(ALL).await, "1|open;2|open;3|open 7");
    let done: Value = serde_json::from_str(&done).expect("JSON");
    desk.succeed(&["undo", &format!("xid:{}", done["xid"].as_str().expect("a number")), "--yes"]);
    assert_eq!(desk.ask(ALL).await, before);
}
