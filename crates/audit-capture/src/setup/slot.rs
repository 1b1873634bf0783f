//! The replication slot: the point of the WAL from which nothing is lost. It is created last, and never before the
//! publication.

use crate::setup::{Found, Wanted};
use crate::slot::{PLUGIN, SlotState, create_sql};
use crate::step::{On, Plan, Statement, Step};

pub(super) fn create(plan: &mut Plan, found: &Found, wanted: &Wanted<'_>) {
    let name = &wanted.source.slot;
    match &found.slot {
        Some(slot) => match unusable(slot, &found.server.database) {
            Some((message, hint)) => plan.refuse(message, hint),
            None => plan.exists(format!("replication slot {name}")),
        },
        None => {
            let sql = create_sql(found.server.major, name);
            let why = "keeps WAL from here on; waits until every transaction that writes now has ended";
            let statement = |on| Statement { on, why: why.to_owned(), sql: sql.clone() };
            let by_hand = |who: &str| Step::ByHand { statement: statement(On::Admin), who: who.to_owned() };
            let daemon = found.daemon.as_ref().is_some_and(|role| role.replication);
            // A slot that is older than the publication reaches changes that cannot be decoded.
            let published = found.publication.is_some() || found.admin.may_create;
            plan.steps.push(match (published, found.admin.replication, daemon) {
                (false, true, _) | (false, _, true) => by_hand("setup, run again once the publication is there"),
                (true, true, _) => Step::Run(statement(On::Admin)),
                (true, false, true) => Step::Run(statement(On::Daemon)),
                (_, false, false) => by_hand("a role with REPLICATION, after the publication was made"),
            });
        }
    }
}

/// Why nobody can capture through this slot, and what to do.
pub(crate) fn unusable(slot: &SlotState, database: &str) -> Option<(String, String)> {
    let name = &slot.name;
    let another = || "give this source a slot of its own: source.slot in the configuration".to_owned();
    if slot.plugin.as_deref() != Some(PLUGIN) {
        let plugin = slot.plugin.as_deref().map_or("physical".to_owned(), |plugin| format!("for the plugin {plugin}"));
        return Some((format!("replication slot {name} exists and is {plugin}, not for {PLUGIN}"), another()));
    }
    if let Some(other) = slot.database.as_deref().filter(|other| *other != database) {
        return Some((format!("replication slot {name} belongs to database {other}, not {database}"), another()));
    }
    if slot.synced {
        let hint = "connect to the primary".to_owned();
        return Some((format!("replication slot {name} is a standby's copy of the primary's"), hint));
    }
    slot.lost().map(|reason| {
        let hint = "changes were lost: `cdc-audit run --accept-gap` makes it anew, goes on, and records the stretch in every sink";
        (format!("replication slot {name} is lost ({reason})"), hint.to_owned())
    })
}
