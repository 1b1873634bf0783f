//! Time zones by name ([`zone`]).

use std::path::Path;

use jiff::tz::{Offset, TimeZone};

/// The folders in which systems keep the rules of time zones.
const FOLDERS: [&str; 3] = ["/usr/share/zoneinfo", "/usr/lib/zoneinfo", "/etc/zoneinfo"];

/// A name that is no time zone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a time zone that this machine knows")]
pub struct NotAZone(String);

impl NotAZone {
    /// A hint on what to do about the error.
    pub fn hint(&self) -> String {
        "give UTC, an offset such as +02:00, or a name such as Europe/Rome, whose rules must be in /usr/share/zoneinfo"
            .to_owned()
    }
}

/// The time zone of this name: `UTC`, an offset such as `+02:00`, or a name such as `Europe/Rome`. The rules of named
/// zones are the system's.
///
/// # Errors
/// Returns [`NotAZone`] if the system has no such zone.
pub fn zone(name: &str) -> Result<TimeZone, NotAZone> {
    let found = match name {
        "UTC" | "utc" | "Z" => Some(TimeZone::UTC),
        _ => offset(name).map(TimeZone::fixed).or_else(|| named(name)),
    };
    found.ok_or_else(|| NotAZone(name.to_owned()))
}

/// Reads `+02:00`.
pub(super) fn offset(text: &str) -> Option<Offset> {
    let (sign, digits) = match text.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let (hours, minutes) = digits.split_once(':')?;
    let number = |text: &str| text.parse::<i32>().ok().filter(|_| text.len() == 2 && !text.starts_with('+'));
    let (hours, minutes) = (number(hours)?, number(minutes).filter(|minutes| *minutes < 60)?);
    Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()
}

fn named(name: &str) -> Option<TimeZone> {
    let in_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'+' | b'/');
    // Without dots no name leads out of the folder.
    if name.is_empty() || name.starts_with('/') || !name.bytes().all(in_name) {
        return None;
    }
    let rules = |folder: &&str| std::fs::read(Path::new(folder).join(name)).ok();
    TimeZone::tzif(name, &FOLDERS.iter().find_map(rules)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_utc_offsets_and_names_that_the_system_knows() {
        assert_eq!(zone("UTC"), Ok(TimeZone::UTC));
        assert_eq!(
            zone("-03:30").map(|zone| zone.to_fixed_offset().map(|offset| offset.seconds()).ok()),
            Ok(Some(-12_600))
        );
        for name in ["", "Mars/Base", "../etc/passwd", "/etc/localtime", "+2", "+02:61", "+99:00", "++1:00"] {
            assert_eq!(zone(name), Err(NotAZone(name.to_owned())));
        }
    }
}
