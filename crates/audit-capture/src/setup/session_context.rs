//! `source.session_context`: a trigger on the application's tables, only if the configuration asks for it.
//!
//! It fires once for each statement, whatever the number of rows. It passes on what the application's settings say,
//! unless that was already written in the transaction.

use audit_core::rules::matches;

use crate::config::SessionContext;
use crate::facts::Table;
use crate::setup::{Found, LOCK_TIMEOUT, Wanted};
use crate::step::Plan;

pub(super) fn create(plan: &mut Plan, found: &Found, wanted: &Wanted<'_>) {
    let asked = wanted.source.session_context.as_ref();
    for pattern in asked.iter().flat_map(|asked| &asked.tables) {
        if !found.tables.iter().any(|table| matches(pattern, &table.name().to_string())) {
            let message = format!("source.session_context: no table is called {pattern}");
            plan.note(message, Some("name it as schema.table, with * and ?".to_owned()));
        }
    }
    for table in &found.tables {
        let name = table.name().to_string();
        match (asked.filter(|asked| wants(asked, table)), &table.context_trigger) {
            (Some(asked), Some(there)) if *there == arguments(asked) => {
                plan.exists(format!("trigger cdc_audit_context of {name}"));
            }
            (Some(asked), _) => {
                let why = format!("says who changes {name}, by the settings of the session; once for each statement");
                plan.run_if(table.owned, &format!("the owner of {name}"), why, sql(asked, table));
            }
            (None, Some(_)) => drop_one(plan, table, "source.session_context does not name the table"),
            (None, None) => {}
        }
    }
}

/// Whether the table lacks the trigger that the configuration asks for.
pub(crate) fn is_missing(asked: &SessionContext, table: &Table) -> bool {
    wants(asked, table) && table.context_trigger.as_ref() != Some(&arguments(asked))
}

pub(crate) fn drop_all(plan: &mut Plan, found: &Found) {
    let with: Vec<&Table> = found.tables.iter().filter(|table| table.context_trigger.is_some()).collect();
    if with.is_empty() {
        return;
    }
    let why = "give up instead of waiting in front of the application's statements";
    plan.run(why, format!("SET lock_timeout TO '{LOCK_TIMEOUT}'"));
    with.into_iter().for_each(|table| drop_one(plan, table, "it calls a function that goes"));
    plan.run("what follows locks no table", "SET lock_timeout TO 0");
}

fn drop_one(plan: &mut Plan, table: &Table, why: &str) {
    let who = format!("the owner of {}", table.name());
    plan.run_if(table.owned, &who, why, format!("DROP TRIGGER cdc_audit_context ON {}", table.quoted));
}

fn wants(asked: &SessionContext, table: &Table) -> bool {
    asked.tables.iter().any(|pattern| matches(pattern, &table.name().to_string()))
}

fn sql(asked: &SessionContext, table: &Table) -> String {
    let quoted = |text: &String| format!("'{}'", text.replace('\'', "''"));
    let pairs: Vec<String> =
        asked.settings.iter().flat_map(|(setting, field)| [quoted(setting), quoted(field)]).collect();
    format!(
        "CREATE OR REPLACE TRIGGER cdc_audit_context BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {} FOR EACH STATEMENT \
         EXECUTE FUNCTION cdc_audit.context_from_settings({})",
        table.quoted,
        pairs.join(", ")
    )
}

/// The trigger's arguments as the catalog stores them: each one is terminated, not separated.
fn arguments(asked: &SessionContext) -> Vec<String> {
    let pairs = asked.settings.iter().flat_map(|(setting, field)| [setting.clone(), field.clone()]);
    pairs.chain([String::new()]).collect()
}
