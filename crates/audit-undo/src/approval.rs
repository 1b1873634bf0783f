//! The approval of a second person: their session holds locks that only this plan has.
//!
//! Nothing is stored, and there is no secret to lose: the server itself says whose session holds the locks. The approval
//! is for exactly these statements, for this actor and reason, and it ends with the session.

use audit_core::mac::write_sha256;
use serde_json::json;
use tokio_postgres::Client;

use crate::report::Request;
use crate::{Error, Refusal};

/// The hash of what is written, and of who wants it, why, and what it puts back.
pub fn plan(request: &Request, undone: &[String], statements: &[String]) -> String {
    let said = ["tool", "actor_id", "reason"].map(|name| request.context.get(name));
    let mut out = String::new();
    write_sha256(json!([said, undone, statements]).to_string().as_bytes(), &mut out);
    out
}

/// The whole hash, as numbers of locks.
fn locks(plan: &str) -> Result<Vec<i64>, Refusal> {
    let unfit = || Refusal::new(format!("{plan} is not the hash of a plan"));
    let bytes = plan.strip_prefix("sha256:").and_then(|hex| hex::decode(hex).ok()).ok_or_else(unfit)?;
    let (words, _) = bytes.as_chunks();
    Ok(words.iter().copied().map(i64::from_be_bytes).collect())
}

/// Approves a plan until the session ends.
///
/// # Errors
/// Fails if the server cannot be asked, or if somebody holds the locks against it.
pub async fn approve(client: &Client, plan: &str) -> Result<(), Error> {
    for lock in locks(plan)? {
        let got: bool = client.query_one("SELECT pg_try_advisory_lock_shared($1)", &[&lock]).await?.get(0);
        if !got {
            return Err(Refusal::new("another session holds the locks of this plan").into());
        }
    }
    Ok(())
}

/// The login that approves the plan: ⚠ never the one that carries it out.
pub async fn approved_by(client: &Client, plan: &str, approvers: &[String]) -> Result<String, Error> {
    let asked = client.query(include_str!("sql/approved.sql"), &[&locks(plan)?, &approvers]).await?;
    let by = asked.first().map(|row| row.get(0));
    Ok(by.ok_or_else(|| {
        Refusal::new("a second person has to approve this, and nobody does; nothing was written").hint(format!(
            "let one of {} run the same command with their own --as, and with --approve 15min in place of --yes; run yours \
             while theirs waits. The plan is {plan}",
            approvers.join(", ")
        ))
    })?)
}
