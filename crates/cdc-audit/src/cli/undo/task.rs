//! From versions of the trail to rows that are put back: what `undo` and `rollback` share.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use audit_core::position::{Micros, Position};
use audit_core::stored::Record;
use audit_keys::{Access, Ask, Opener};
use audit_undo::{Change, Error, Net, Outcome, Refusal, Report, Request, Resolved, Trail, approve, resolve, script};
use serde_json::json;

use super::operator::How;
use super::question::Question;
use super::show;
use super::wait::{Said, Waiting, committed};
use crate::config::Config;
use crate::error::{CliError, code};
use crate::role::os_user;

/// Versions that are undone, and how.
pub struct Task {
    pub how: How,
    pub question: Question,
    pub trail: Trail,
    /// The positions of the versions that are undone.
    pub undone: Vec<Position>,
    /// From where on nothing may be missing.
    pub since: Position,
}

impl Task {
    /// `records` are oldest first.
    pub async fn new(how: How, question: Question, records: Vec<Record>) -> Result<Task, CliError> {
        let mut shapes = HashMap::new();
        for record in &records {
            if !shapes.contains_key(&record.table_name) {
                let of_table = question.store.shapes(&question.source, &record.table_name).await?;
                shapes.insert(record.table_name.clone(), of_table);
            }
        }
        let undone: Vec<Position> = records.iter().map(|record| record.position).collect();
        let since = undone.first().copied().unwrap_or_default();
        let derived = match how.allow_derived {
            true => question.derive(&records).await?,
            false => HashMap::new(),
        };
        Ok(Task { how, question, trail: Trail { records, shapes, derived }, undone, since })
    }

    /// Undoes only versions after a position; the others say what was before.
    pub fn after(mut self, position: Position) -> Task {
        self.since = self.undone.iter().rev().copied().find(|past| *past <= position).unwrap_or(position);
        self.undone.retain(|undone| *undone > position);
        self
    }

    /// Puts back what the changes make, as `nets` folds them. `whole`: they are all of one transaction.
    pub async fn run(
        self,
        config: &Config,
        whole: bool,
        nets: impl FnOnce(&[Change]) -> Result<Vec<Net>, Refusal>,
    ) -> Result<ExitCode, CliError> {
        if self.undone.is_empty() {
            return Err(CliError::new("there is nothing to put back").code(code::NOT_FOUND));
        }
        self.question.refuse_gap(self.trail.shapes.keys(), self.since).await?;
        let rules = config.rules();
        let resolved = resolve(&self.question.client, &self.trail, &rules).await.map_err(show::error)?;
        let nets = nets(&resolved.changes).map_err(|refusal| show::error(refusal.into()))?;
        let request = self.request(whole, config)?;
        if request.apply {
            self.log(config, self.question.command).await?;
        }
        let began = self.now().await?;
        let done = audit_undo::run(&self.question.client, &resolved, &nets, &request, show::estimate).await;
        match done {
            Ok(report) => self.report(report, &resolved, began, config).await,
            Err(Error::Conflict(conflicts)) => {
                show::conflicts(&self.question, &self.trail, self.how.json, conflicts).await
            }
            Err(Error::Unknown { xid }) => self.unknown(config, &xid, began).await,
            Err(error) => Err(show::error(error)),
        }
    }

    pub fn request(&self, whole: bool, config: &Config) -> Result<Request, CliError> {
        let how = &self.how;
        let context = json!({
            "actor_id": how.actor, "reason": how.reason, "tool": format!("cdc-audit {}", self.question.command),
            "requested_by": os_user()?, "request_id": self.question.request_id,
        });
        let first = self.trail.records.first().filter(|_| whole);
        Ok(Request {
            context: context.as_object().cloned().unwrap_or_default(),
            whole: first.map(|record| (record.commit_lsn, record.xid)),
            fields: how.fields.clone(),
            later: how.later(),
            max_rows: how.max_rows,
            accept_triggers: how.accept_triggers,
            apply: how.yes,
            approvers: config.undo.approvers.clone(),
        })
    }

    /// ⚠ Before the first write: nobody undoes anything unseen where there is an access log.
    async fn log(&self, config: &Config, action: &str) -> Result<(), CliError> {
        let keys = &config.protection.keys;
        if keys.is_empty() {
            return Ok(());
        }
        let store = self.how.reader().endpoint(config.key_store())?;
        let opener = Opener::new(keys, store, &format!("cdc-audit {}", self.question.command))?;
        let access = Access {
            os_user: os_user()?,
            requested_by: Some(self.how.actor.clone()),
            action: action.to_owned(),
            purpose: Some(self.how.reason.clone()),
        };
        let undone = self.trail.records.iter().filter(|record| self.undone.contains(&record.position));
        let ask = |record: &Record| Ask {
            text: String::new(),
            aads: Vec::new(),
            domains: Vec::new(),
            source: record.source.clone(),
            table: record.table_name.clone(),
            key: record.key.clone(),
            position: record.position.to_string(),
            field: record.changed.as_ref().map_or_else(String::new, |changed| changed.join(",")),
        };
        Ok(opener.note(&access, &undone.map(ask).collect::<Vec<_>>()).await?)
    }

    /// The time of the source.
    async fn now(&self) -> Result<Micros, CliError> {
        let asked = "SELECT (extract(epoch FROM now()) * 1000000)::bigint";
        Ok(Micros(self.question.client.query_one(asked, &[]).await?.get(0)))
    }

    async fn report(
        self,
        report: Report,
        resolved: &Resolved,
        began: Micros,
        config: &Config,
    ) -> Result<ExitCode, CliError> {
        if let Some(file) = &self.how.sql {
            write(file, &script(&report))?;
        }
        let versions = match report.outcome {
            Outcome::Committed => self.waiting(&report.xid, began).versions(&self.question.client).await?,
            _ => Vec::new(),
        };
        let shown = show::report(&self.how, &self.question, &report, resolved, &versions)?;
        match self.how.approve {
            Some(span) => self.approve(&report.plan, span.get(), config).await,
            None => Ok(shown),
        }
    }

    /// Approves what was tried, until it is done.
    async fn approve(&self, plan: &str, span: Duration, config: &Config) -> Result<ExitCode, CliError> {
        self.log(config, &format!("approve {}", self.question.command)).await?;
        approve(&self.question.client, plan).await.map_err(show::error)?;
        eprintln!("you approve {plan} while this runs; Ctrl-C takes it back");
        let (since, wanted) = (self.now().await?, Said::Plan(plan));
        let versions = Waiting { question: &self.question, span, since, wanted }.seen().await?;
        if versions.is_empty() {
            return Err(CliError::new("nobody did what you approved; the approval has ended").code(code::FAILED));
        }
        show::versions(self.how.json, &versions)?;
        Ok(ExitCode::SUCCESS)
    }

    fn waiting<'t>(&'t self, xid: &str, began: Micros) -> Waiting<'t> {
        let wanted = Said::Request { id: &self.question.request_id, xid: short(xid) };
        Waiting { question: &self.question, span: self.how.wait.get(), since: began, wanted }
    }

    /// Finds out whether the commit whose answer was lost took place. ⚠ The number of its transaction means something only
    /// to the server that gave it; to another one that took its place, what counts is what the trail has of this request.
    async fn unknown(self, config: &Config, xid: &str, began: Micros) -> Result<ExitCode, CliError> {
        eprintln!("the connection was lost during the commit; asking whether it took place");
        let again = match How::again(&self.question.login).await {
            Ok(client) if self.question.is_same(&client).await => Some(client),
            _ => None,
        };
        let there = match &again {
            Some(client) => committed(client, xid).await,
            None => None,
        };
        let waiting = self.waiting(xid, began);
        let versions = match (there, &again) {
            (Some(false), _) => {
                return Err(CliError::new("the commit did not take place; nothing was written").code(code::FAILED));
            }
            (Some(true), Some(client)) => waiting.versions(client).await?,
            _ => waiting.seen().await?,
        };
        if there.is_none() && versions.is_empty() {
            return Err(CliError::new("it is not known whether the commit took place").hint(format!(
                "do not undo it again before you know: once the trail has what {} committed until now, ask it: cdc-audit search \
                 --request {}",
                config.source.endpoint.describe(),
                self.question.request_id
            )));
        }
        show::versions(self.how.json, &versions)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The number by which the trail knows a transaction: without the epoch.
fn short(xid: &str) -> u32 {
    xid.parse::<u64>().map_or(0, |xid| xid as u32)
}

/// Writes a new file that only its owner can read, because it has values of rows.
fn write(path: &Path, text: &str) -> Result<(), CliError> {
    let file = File::options().write(true).create_new(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|error| {
        CliError::new(format!("{} cannot be written", path.display())).detail(error.to_string()).code(code::USAGE)
    })
}
