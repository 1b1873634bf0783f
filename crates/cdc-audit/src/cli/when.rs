//! A span of time, as people name it in the arguments of a command.

use audit_core::position::Micros;
use audit_history::question::time::{Clock, NotATime};
use audit_history::question::zone::zone;
use jiff::Timestamp;

use crate::error::{CliError, code};

#[derive(Debug, clap::Args)]
pub struct When {
    /// Committed at or after: 2026-01-31, "2026-01-31 14:00", yesterday, monday, 3d, "3 days ago", or RFC 3339.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Committed before. Default: now.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// The time zone of these times and of days: UTC, +02:00, or Europe/Rome.
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    tz: String,
}

impl When {
    /// Now, in the zone that was asked for.
    pub fn clock(&self) -> Result<Clock, CliError> {
        clock(&self.tz)
    }

    pub fn zone_name(&self) -> &str {
        &self.tz
    }

    /// Start and end of the span. Without a start it begins so many days before the end, without an end it ends now.
    pub fn span(&self, clock: &Clock, days: i64) -> Result<(Micros, Micros), CliError> {
        const DAY: i64 = 86_400_000_000;
        let (since, until) = self.ends(clock)?;
        let until = until.unwrap_or(clock.now);
        let since = since.unwrap_or(Micros(until.0.saturating_sub(days.saturating_mul(DAY))));
        match since < until {
            true => Ok((since, until)),
            false => Err(CliError::new("the span ends before it begins")
                .hint("give --since before --until".to_owned())
                .code(code::USAGE)),
        }
    }

    /// The ends that were given.
    pub fn ends(&self, clock: &Clock) -> Result<(Option<Micros>, Option<Micros>), CliError> {
        let refused = |error: NotATime| CliError::of(&error).hint(error.hint()).code(code::USAGE);
        let time = |text: &Option<String>| text.as_deref().map(|text| clock.time(text)).transpose().map_err(refused);
        Ok((time(&self.since)?, time(&self.until)?))
    }
}

/// Now, in a zone by its name.
pub fn clock(tz: &str) -> Result<Clock, CliError> {
    let zone = zone(tz).map_err(|error| CliError::of(&error).hint(error.hint()).code(code::USAGE))?;
    Ok(Clock { now: Micros::now(), zone })
}

/// `2026-01-15 13:30:00` in the clock's zone; the stored form where the calendar does not reach.
pub fn time(clock: &Clock, at: Micros) -> String {
    match Timestamp::from_microsecond(at.0) {
        Ok(at) => at.to_zoned(clock.zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => at.to_string(),
    }
}
