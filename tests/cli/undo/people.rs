//! Who may put rows back: tables that nobody may, and a second person who has to approve.

use std::process::{Child, Command, Stdio};

use super::*;

const APPROVED: &str = "[[tables]]\nname = \"*\"\nignore_alone = []\nbaseline = false\n[[tables]]\nname = \"public.lines\"\nundo = \"never\"\n";

async fn desk_with_approver() -> (Desk, String) {
    let server = shared(15).await;
    let boss = audit_testkit::unique("boss");
    let rules = format!("{APPROVED}[undo]\napprovers = [\"{boss}\"]\n");
    let world = World::on(server).full(true).without_lake().unwitnessed().tables(&rules).sql(TABLES).build().await;
    let desk = desk_of(server, world);
    // The operator may approve what others do, and not what they do themselves.
    desk.world.edit_config(&format!("[\"{boss}\"]"), &format!("[\"{boss}\", \"{}\"]", desk.login));
    server.execute(&desk.world.database, &format!("CREATE ROLE {boss} LOGIN PASSWORD 'sesame' IN ROLE {}", desk.login));
    (desk, boss)
}

impl Desk {
    /// Lets a login approve an undo of the first order, for as long as that runs.
    fn approving(&self, login: &str, version: &str) -> Child {
        let url = self.url().replace(&self.login, login);
        Command::new(audit_testkit::program())
            .args(["undo", "orders", "1", version, "--approve", "10min", "--as", &url, "--actor", "boss"])
            .args(["--reason", "by mistake", "--config", self.world.config.to_str().expect("a plain name")])
            .env("PGPASSWORD", "sesame")
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program runs")
    }

    /// Waits until a login holds an approval.
    async fn approved_by(&self, login: &str, approving: &mut Child) {
        let holding = format!(
            "SELECT count(*)::text FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND usename = '{login}'"
        );
        audit_testkit::eventually_async("an approval", async || {
            assert!(approving.try_wait().expect("a program").is_none(), "an approval that ended");
            self.ask(&holding).await == "4"
        })
        .await;
    }
}

/// Nothing is committed before a second person approves exactly what is written, and the versions say who did.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_person_approves_exactly_what_is_written() {
    let (desk, boss) = desk_with_approver().await;
    desk.sql(
        "INSERT INTO orders VALUES (1, 'open', 1, NULL); UPDATE orders SET state = 'paid'; UPDATE orders SET total = 2",
    )
    .await;
    desk.versions("orders", "1", 3);
    desk.succeed(&["undo", "orders", "1", "v2"]);
    let said = desk.refused(11, &["undo", "orders", "1", "v2", "--yes"]);
    assert!(
        said.contains("a second person has to approve") && said.contains("--approve 15min") && said.contains(&boss),
        "{said}"
    );
    // One does not approve for oneself, nor one thing for another.
    let mut own = desk.approving(&desk.login, "v2");
    desk.approved_by(&desk.login, &mut own).await;
    let mut other = desk.approving(&boss, "v3");
    desk.approved_by(&boss, &mut other).await;
    desk.refused(11, &["undo", "orders", "1", "v2", "--yes"]);
    assert_eq!(desk.ask(ORDER).await, "paid|2.00|∅");
    for child in [&mut own, &mut other] {
        child.kill().and_then(|()| child.wait()).expect("a program that ends");
    }
    let gone = "SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database \
        WHERE datname = current_database()) AND mode = 'ShareLock'";
    audit_testkit::eventually_async("no approval", async || desk.ask(gone).await == "0").await;
    let mut approving = desk.approving(&boss, "v2");
    desk.approved_by(&boss, &mut approving).await;
    let done = desk.succeed(&["undo", "orders", "1", "v2", "--yes", "--json"]);
    assert_eq!(desk.ask(ORDER).await, "open|2.00|∅");
    let done: Value = serde_json::from_str(&done).expect("JSON");
    let context = &done["versions"][0]["context"];
    assert_eq!((&context["approved_by"], &context["plan"]), (&Value::from(boss), &done["plan"]), "{context}");
    let approved = approving.wait_with_output().expect("an approval that ends");
    let said = String::from_utf8_lossy(&approved.stdout).into_owned();
    assert!(approved.status.success() && said.contains("committed, and recorded as:"), "{said}");
}

/// Tables that the configuration takes out are not written.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_never_put_back_is_refused() {
    let (desk, _) = desk_with_approver().await;
    desk.sql(
        "INSERT INTO orders VALUES (1, 'open', 1, NULL); INSERT INTO lines VALUES (1, 1, 'a', 1); DELETE FROM lines",
    )
    .await;
    let xid = desk.versions("lines", "1,1", 2)[0]["xid"].to_string();
    let said = desk.refused(11, &["undo", &format!("xid:{xid}")]);
    assert!(said.contains("public.lines") && said.contains("undo = \"never\""), "{said}");
}
