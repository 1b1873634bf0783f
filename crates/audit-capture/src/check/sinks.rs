//! The sinks, as their own crates found them.

use std::time::Duration;

use super::{Area, Report, SinkProbe};

/// `tables`: how many are captured, where that is known.
pub(super) fn check(report: &mut Report, probes: &[SinkProbe], tables: Option<usize>) {
    for probe in probes {
        match &probe.outcome {
            Ok(seen) => report.ok(Area::Sink, &probe.name, seen.clone()),
            Err(error) => {
                let fix = error.hint.clone().unwrap_or_else(|| "see the message".to_owned());
                report.fail(Area::Sink, &probe.name, error.message.clone(), fix);
            }
        }
        if let (Some(age), Some(tables)) = (probe.file_age.filter(|age| !age.is_zero()), tables) {
            report.ok(Area::Sink, &probe.name, commits(tables, age));
        }
    }
}

/// Each commit of a table is at least one file and one entry of its log, each a request that clouds charge for.
fn commits(tables: usize, age: Duration) -> String {
    let each = (3600.0 / age.as_secs_f64()).ceil() as u64;
    format!("up to {} commits an hour: {tables} tables, {each} files an hour each", each.saturating_mul(tables as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{ProbeError, State};

    #[test]
    fn a_sink_is_as_its_probe_found_it() {
        let good = SinkProbe {
            name: "archive".into(),
            outcome: Ok("written".into()),
            file_age: Some(Duration::from_secs(300)),
        };
        let error = ProbeError { message: "read-only".into(), hint: Some("remount it".into()) };
        let bad = SinkProbe { name: "hot".into(), outcome: Err(error), file_age: None };
        let mut report = Report::default();
        check(&mut report, &[good, bad], Some(40));
        let seen: Vec<(State, &str)> = report.findings.iter().map(|f| (f.state, f.message.as_str())).collect();
        let commits = "up to 480 commits an hour: 40 tables, 12 files an hour each";
        assert_eq!(seen, [(State::Ok, "written"), (State::Ok, commits), (State::Fail, "read-only")]);
    }
}
