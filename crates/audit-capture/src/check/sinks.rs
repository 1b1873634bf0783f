//! The sinks, as their own crates reported them.

use std::time::Duration;

use super::{Area, Pace, Report, SinkProbe};

/// `tables` is the number of captured tables, if it is known.
pub(super) fn check(report: &mut Report, probes: &[SinkProbe], tables: Option<usize>) {
    for probe in probes {
        match &probe.outcome {
            Ok(seen) => report.ok(Area::Sink, &probe.name, seen.clone()),
            Err(error) => {
                let fix = error.hint.clone().unwrap_or_else(|| "see the message".to_owned());
                report.fail(Area::Sink, &probe.name, error.message.clone(), fix);
            }
        }
        if let (Some(pace), Some(tables)) = (&probe.pace, tables) {
            report.ok(Area::Sink, &probe.name, commits(tables, pace.file_age));
            if let Some(message) = slow_rolls(tables, pace) {
                let fix = "raise `file_age`, or have fewer tables in one lake; nothing is lost, but readers that list come late";
                report.warn(Area::Sink, &probe.name, message, fix);
            }
        }
    }
}

/// The number of commits. Each commit of a table is at least one file and one entry of its log, and each is a request
/// that clouds charge for.
fn commits(tables: usize, age: Duration) -> String {
    let each = (3600.0 / age.as_secs_f64()).ceil() as u64;
    format!("up to {} commits an hour: {tables} tables, {each} files an hour each", each.saturating_mul(tables as u64))
}

/// The approximate time of rolling one table in a bucket: some requests one after the other, and one for each file, of
/// which several run at the same time.
const ROLL: Duration = Duration::from_millis(500);
const ROLL_FILE: Duration = Duration::from_millis(5);

/// Whether rolls would be too slow if all tables were written to without a pause; tables are rolled one after the
/// other.
fn slow_rolls(tables: usize, pace: &Pace) -> Option<String> {
    let roll_age = pace.roll_age?;
    let files = (roll_age.as_secs_f64() / pace.file_age.as_secs_f64()).ceil();
    let all = (ROLL.as_secs_f64() + files * ROLL_FILE.as_secs_f64()) * tables as f64;
    (all > roll_age.as_secs_f64()).then(|| {
        let (all, roll_age) = (all.ceil() as u64, roll_age.as_secs());
        format!("if all {tables} tables are written to without a pause, rolling their fresh files takes about {all} s in a bucket, more than `roll_age`, {roll_age} s")
    })
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
            pace: Some(Pace { file_age: Duration::from_secs(300), roll_age: None }),
        };
        let error = ProbeError { message: "read-only".into(), hint: Some("remount it".into()) };
        let bad = SinkProbe { name: "hot".into(), outcome: Err(error), pace: None };
        let mut report = Report::default();
        check(&mut report, &[good, bad], Some(40));
        let seen: Vec<(State, &str)> = report.findings.iter().map(|f| (f.state, f.message.as_str())).collect();
        let commits = "up to 480 commits an hour: 40 tables, 12 files an hour each";
        assert_eq!(seen, [(State::Ok, "written"), (State::Ok, commits), (State::Fail, "read-only")]);
    }

    #[test]
    fn rolls_that_cannot_keep_up_are_told_beforehand() {
        let roll_age = Some(Duration::from_secs(3600));
        let pace = |file_age| Pace { file_age: Duration::from_secs(file_age), roll_age };
        assert_eq!(slow_rolls(800, &pace(5)), None);
        let slow = slow_rolls(2000, &pace(5)).unwrap_or_default();
        assert!(slow.contains("all 2000 tables") && slow.contains("about 8200 s"), "{slow}");
        assert_eq!(slow_rolls(2000, &pace(60)), None);
        assert_eq!(slow_rolls(10_000, &Pace { roll_age: None, ..pace(5) }), None);
    }
}
