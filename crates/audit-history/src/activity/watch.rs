//! What each rule keeps of the versions of one table, and what it makes of it: [`Watch`].

use std::collections::HashMap;

use audit_core::position::{Micros, Position};
use audit_core::rules::matches;
use audit_core::stored::Record;
use jiff::Timestamp;
use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;

use super::config::{FinalState, Of, OffHours, Rule, Severity};
use super::state::{States, text};
use super::window::{Burst, Subject, Windows};
use super::{FINDINGS_MAX, Finding};
use crate::question::zone::zone;
use crate::store::StoreError;
use crate::timeline::Timeline;

/// Maximum number of actors of whom each is counted.
const ACTORS_MAX: usize = 10_000;

/// Maximum number of positions that a finding names.
const POSITIONS_MAX: usize = 20;

/// A rule that is looking at one table.
pub enum Watch<'r> {
    Windows {
        rule: &'r Rule,
        windows: Windows,
        ended: Vec<Burst>,
        truncations: Vec<Burst>,
        further: u64,
    },
    Final {
        rule: &'r FinalState,
        states: States,
        found: Vec<(Record, String, bool)>,
        untold: u64,
        further: u64,
    },
    Counted {
        rule: &'r Rule,
        hours: Option<(Time, Time, TimeZone)>,
        seen: u64,
        by: HashMap<Option<String>, Burst>,
        /// Versions of further actors.
        uncounted: u64,
    },
}

impl Rule {
    fn tables(&self) -> &[String] {
        match self {
            Rule::ManyChanges(rule) => &rule.tables,
            Rule::FinalState(rule) => &rule.tables,
            Rule::Unattributed(rule) => &rule.tables,
            Rule::OffHours(rule) => &rule.tables,
            Rule::MassDelete(rule) => &rule.tables,
        }
    }

    pub fn severity(&self) -> Severity {
        match self {
            Rule::ManyChanges(rule) => rule.severity,
            Rule::FinalState(rule) => rule.severity,
            Rule::Unattributed(rule) => rule.severity,
            Rule::OffHours(rule) => rule.severity,
            Rule::MassDelete(rule) => rule.severity,
        }
    }

    pub(super) fn concerns(&self, table: &str) -> bool {
        self.tables().is_empty() || self.tables().iter().any(|pattern| matches(pattern, table))
    }

    /// What the rule looks for, in a sentence.
    pub fn says(&self) -> String {
        match self {
            Rule::ManyChanges(rule) => {
                let of = if rule.of == Of::Row { "one row by one actor" } else { "one table by one actor" };
                format!("more than {} versions of {of} within {}", rule.more_than, rule.within)
            }
            Rule::FinalState(rule) => {
                format!("changes of rows whose {} before was {}", rule.column, rule.states.join(" or "))
            }
            Rule::Unattributed(rule) => format!("versions without the {} that their table requires", rule.what.word()),
            Rule::OffHours(rule) => {
                let weekends = if rule.weekends { ", and on weekends" } else { "" };
                format!("versions between {} and {} {}{weekends}", rule.from, rule.until, rule.zone)
            }
            Rule::MassDelete(rule) => {
                format!("more than {} deletions by one actor within {}, and truncations", rule.more_than, rule.within)
            }
        }
    }
}

impl<'r> Watch<'r> {
    pub fn of(rule: &'r Rule) -> Watch<'r> {
        let windows = |more_than, within: audit_config::Span| {
            let within = i64::try_from(within.get().as_micros()).unwrap_or(i64::MAX);
            let windows = Windows::new(more_than, within);
            Watch::Windows { rule, windows, ended: Vec::new(), truncations: Vec::new(), further: 0 }
        };
        match rule {
            Rule::ManyChanges(many) => windows(many.more_than, many.within),
            Rule::MassDelete(mass) => windows(mass.more_than, mass.within),
            Rule::FinalState(rule) => {
                Watch::Final { rule, states: States::new(&rule.column), found: Vec::new(), untold: 0, further: 0 }
            }
            Rule::Unattributed(_) => Watch::Counted { rule, hours: None, seen: 0, by: HashMap::new(), uncounted: 0 },
            Rule::OffHours(off) => {
                // Both were checked with the configuration.
                let hours = off.hours().zip(zone(&off.zone).ok());
                let hours = hours.map(|((from, until), zone)| (from, until, zone));
                Watch::Counted { rule, hours, seen: 0, by: HashMap::new(), uncounted: 0 }
            }
        }
    }

    pub async fn see(&mut self, store: &Timeline, version: &Record) -> Result<(), StoreError> {
        let (at, position) = (version.committed_at, version.position);
        match self {
            Watch::Windows { rule, windows, ended, truncations, further } => {
                let actor = version.actor_id.clone();
                let key = match rule {
                    Rule::ManyChanges(many) if many.of == Of::Row => match &version.key {
                        Some(key) => Some(key.clone()),
                        None => return Ok(()),
                    },
                    Rule::MassDelete(_) if version.event == "truncated" => {
                        add(truncations, further, [burst(actor, at, position)]);
                        return Ok(());
                    }
                    Rule::MassDelete(_) if version.event != "deleted" => return Ok(()),
                    _ => None,
                };
                add(ended, further, windows.push(Subject { key, actor }, at, position));
            }
            Watch::Final { rule, states, found, untold, further } => match states.before(store, version).await? {
                Some((state, derived)) if rule.states.contains(&text(&state)) => match found.len() < FINDINGS_MAX {
                    true => found.push((version.clone(), text(&state), derived)),
                    false => *further += 1,
                },
                Some(_) => {}
                None => *untold += u64::from(!matches!(version.event.as_str(), "created" | "truncated")),
            },
            Watch::Counted { rule, hours, seen, by, uncounted } => {
                *seen += 1;
                let (is_found, actor) = match rule {
                    Rule::Unattributed(rule) => (version.missing().iter().any(|what| what == rule.what.word()), None),
                    Rule::OffHours(rule) => (is_off(rule, hours, at), version.actor_id.clone()),
                    _ => (false, None),
                };
                let is_counted = by.len() < ACTORS_MAX || by.contains_key(&actor);
                *uncounted += u64::from(is_found && !is_counted);
                if is_found && is_counted {
                    let counted = by.entry(actor.clone()).or_insert_with(|| Burst {
                        count: 0,
                        positions: Vec::new(),
                        ..burst(actor, at, position)
                    });
                    counted.count += 1;
                    (counted.from, counted.to) = (counted.from.min(at), counted.to.max(at));
                    if counted.positions.len() < POSITIONS_MAX {
                        counted.positions.push(position);
                    }
                }
            }
        }
        Ok(())
    }

    /// The findings, and what could not be told.
    pub fn finish(self, name: &str, table: &str) -> (Vec<Finding>, Option<String>) {
        match self {
            Watch::Windows { rule, windows, mut ended, truncations, mut further } => {
                let untold = windows.untold;
                add(&mut ended, &mut further, windows.finish());
                let told = ended.into_iter().map(|burst| (told(rule, &burst), burst));
                let truncated = truncations.into_iter().map(|burst| (format!("truncated by {}", by(&burst)), burst));
                let found =
                    told.chain(truncated).map(|(text, burst)| finding(name, rule.severity(), table, burst, text));
                let said = [
                    (untold > 0).then(|| format!("{untold} versions were not counted, because too many rows changed")),
                    (further > 0).then(|| format!("{further} more findings")),
                ];
                (found.collect(), joined(said))
            }
            Watch::Final { rule, found, untold, further, .. } => {
                let found = found.into_iter().map(|(version, state, derived)| {
                    let text = final_text(rule, &version, &state, derived);
                    let about = burst(version.actor_id.clone(), version.committed_at, version.position);
                    let about = Burst { subject: Subject { key: version.key.clone(), ..about.subject }, ..about };
                    finding(name, rule.severity, table, about, text)
                });
                let said = [
                    (untold > 0).then(|| format!("the state before {untold} versions is not known")),
                    (further > 0).then(|| format!("{further} more findings")),
                ];
                (found.collect(), joined(said))
            }
            Watch::Counted { rule, seen, by: counted, uncounted, .. } => {
                let text = |burst: &Burst| match rule {
                    Rule::Unattributed(rule) => {
                        format!("{} of {seen} versions lack the required {}", burst.count, rule.what.word())
                    }
                    _ => format!("{} versions by {}: {}", burst.count, by(burst), rule.says()),
                };
                let found = counted.into_values().map(|burst| (text(&burst), burst));
                let uncounted = (uncounted > 0).then(|| format!("{uncounted} more versions, by further actors"));
                (found.map(|(text, burst)| finding(name, rule.severity(), table, burst, text)).collect(), uncounted)
            }
        }
    }
}

/// Keeps as many bursts as are shown, and counts the others.
fn add(kept: &mut Vec<Burst>, further: &mut u64, bursts: impl IntoIterator<Item = Burst>) {
    for burst in bursts {
        match kept.len() < FINDINGS_MAX {
            true => kept.push(burst),
            false => *further += 1,
        }
    }
}

fn joined(said: impl IntoIterator<Item = Option<String>>) -> Option<String> {
    let said: Vec<String> = said.into_iter().flatten().collect();
    (!said.is_empty()).then(|| said.join(", "))
}

/// One version as something that is found.
fn burst(actor: Option<String>, at: Micros, position: Position) -> Burst {
    Burst { subject: Subject { key: None, actor }, count: 1, from: at, to: at, positions: vec![position] }
}

fn is_off(rule: &OffHours, hours: &Option<(Time, Time, TimeZone)>, at: Micros) -> bool {
    let Some((from, until, zone)) = hours else { return false };
    let Ok(at) = Timestamp::from_microsecond(at.0) else { return false };
    let at = zone.to_datetime(at);
    let weekend = matches!(at.weekday(), Weekday::Saturday | Weekday::Sunday);
    let time = at.time();
    let off = match from <= until {
        true => *from <= time && time < *until,
        false => *from <= time || time < *until,
    };
    off || (rule.weekends && weekend)
}

fn by(burst: &Burst) -> &str {
    burst.subject.actor.as_deref().unwrap_or("nobody who is known")
}

fn told(rule: &Rule, burst: &Burst) -> String {
    let minutes = (burst.to.0 - burst.from.0).div_euclid(60_000_000);
    let what = if matches!(rule, Rule::MassDelete(_)) { "deletions" } else { "versions" };
    format!("{} {what} by {} in {minutes} min ({})", burst.count, by(burst), rule.says())
}

/// The summary comes from the protected values, as everything else.
fn final_text(rule: &FinalState, version: &Record, state: &str, derived: bool) -> String {
    let who = version.actor_id.as_deref().unwrap_or("nobody who is known");
    let how = if derived { ", as the version before says" } else { "" };
    format!("{} was {state}{how}; {} by {who}: {}", rule.column, version.event, version.summary)
}

fn finding(name: &str, severity: Severity, table: &str, burst: Burst, text: String) -> Finding {
    Finding {
        rule: name.to_owned(),
        severity,
        table_name: table.to_owned(),
        key: burst.subject.key,
        actor_id: burst.subject.actor,
        count: burst.count,
        from: burst.from.to_string(),
        to: burst.to.to_string(),
        positions: burst.positions,
        text,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// The hours pass midnight, the zone has summer time, and the end is not part of them.
    #[test]
    fn hours_are_those_of_the_zone() {
        let rule = |text: &str| serde_json::from_str::<OffHours>(text).unwrap();
        let night = rule(r#"{"from": "20:00", "until": "06:00", "zone": "+02:00"}"#);
        let off = |rule: &OffHours, at: &str| {
            let ((from, until), zone) = (rule.hours().unwrap(), zone(&rule.zone).unwrap());
            is_off(rule, &Some((from, until, zone)), at.parse().unwrap())
        };
        let times = ["2026-03-02T17:59:59Z", "2026-03-02T18:00:00Z", "2026-03-03T03:59:59Z", "2026-03-03T04:00:00Z"];
        assert_eq!(times.map(|at| off(&night, at)), [false, true, true, false]);
        let weekends = rule(r#"{"from": "12:00", "until": "13:00", "weekends": true}"#);
        let times = ["2026-03-06T11:00:00Z", "2026-03-06T12:00:00Z", "2026-03-07T09:00:00Z"];
        assert_eq!(times.map(|at| off(&weekends, at)), [false, true, true]);
    }

    /// What is not kept is counted, so that nobody takes the findings that are shown for all.
    #[test]
    fn findings_that_are_not_kept_are_counted() {
        let (mut kept, mut further) = (Vec::new(), 0);
        let bursts = || (0..700).map(|_| burst(None, Micros(0), Position::default()));
        add(&mut kept, &mut further, bursts());
        add(&mut kept, &mut further, bursts());
        assert_eq!((kept.len(), further), (FINDINGS_MAX, 400));
        assert_eq!(joined([Some("a".to_owned()), None, Some("b".to_owned())]).as_deref(), Some("a, b"));
    }
}
