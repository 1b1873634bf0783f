//! What is written, and when.

use audit_core::sink::Sink;
use audit_testkit::Fixture;

use crate::common::{Lake, row_at};

const USERS: &str = "table public.users (id int4 key, name text, price numeric(18,4)) full\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_there_once_for_both_kinds_of_readers() {
    let lake = Lake::new();
    let batches = Fixture::of(&format!(
        "{USERS}
         begin
         insert public.users [1, \"Ann\", 2.5]
         insert public.users [2, \"Bea\", null]
         commit
         begin
         update public.users [1, \"Ann\", 2.5] -> [1, \"Ann\", 3.5]
         delete public.users [2, \"Bea\", null]
         commit"
    ));
    let sink = lake.write(&batches).await;
    let rows = lake.agreed("public.users").await;
    assert_eq!(rows.len(), 4, "{rows:?}");
    assert_eq!(sink.durable(), batches[0].progress);
    assert_eq!(sink.held_bytes(), 0);
    let update = row_at(&lake.listed_batches("public.users"), 2);
    assert_eq!(update["cdc_changes"], r#"{"price": ["2.5", "3.5"]}"#);
    assert_eq!(update["price"], "3.5000");
    // A repeat changes nothing.
    let mut sink = sink;
    crate::common::write(&mut sink, &batches).await.unwrap();
    assert_eq!(lake.agreed("public.users").await, rows);
    // Nor does one after a restart.
    lake.write(&batches).await;
    assert_eq!(lake.agreed("public.users").await, rows);
}
