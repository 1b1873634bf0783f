//! The identity of the cluster and the history of its timelines: IDENTIFY_SYSTEM and TIMELINE_HISTORY.

use audit_core::position::Lsn;

use super::session::Row;

/// The answer to IDENTIFY_SYSTEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Created by initdb, and the same for all copies of a cluster.
    pub system_id: u64,
    /// Increases with each promotion and each archive recovery.
    pub timeline: u32,
    /// The end of the flushed WAL.
    pub wal_end: Lsn,
    pub dbname: String,
}

/// A timeline that the present one descends from, and the position where it was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimelineFork {
    pub timeline: u32,
    /// What the timeline contains from here on is not part of the present one's history.
    pub fork_lsn: Lsn,
}

pub(crate) fn parse_identity(rows: &[Row]) -> Option<Identity> {
    let [row] = rows else { return None };
    let column = |index: usize| row.get(index)?.as_deref();
    Some(Identity {
        system_id: column(0)?.parse().ok()?,
        timeline: column(1)?.parse().ok()?,
        wal_end: column(2)?.parse().ok()?,
        dbname: column(3)?.to_owned(),
    })
}

/// Parses a history file. It contains for each ancestor, oldest first, its number, where it was left, and why,
/// separated by tabs. (The server's `readTimeLineHistory` accepts any blanks, and comment lines.)
pub(crate) fn parse_history(text: &str) -> Option<Vec<TimelineFork>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let timeline = fields.next()?.parse().ok()?;
            Some(TimelineFork { timeline, fork_lsn: fields.next()?.parse().ok()? })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_lists_the_ancestors() {
        let fork = |timeline, lsn| TimelineFork { timeline, fork_lsn: Lsn(lsn) };
        let text =
            "1\t0/3000148\tno recovery target specified\n\n# comment\n2\t16/B374D848\tbefore 2024-01-01 00:00:00+00\n";
        assert_eq!(parse_history(text), Some(vec![fork(1, 0x300_0148), fork(2, 0x16_B374_D848)]));
        assert_eq!(parse_history(""), Some(Vec::new()));
        for bad in ["1", "one\t0/1\tx", "1\t01\tx"] {
            assert_eq!(parse_history(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_identity_has_four_columns() {
        let row = |texts: [&str; 4]| vec![texts.iter().map(|text| Some((*text).to_owned())).collect()];
        let identity = parse_identity(&row(["7310000000000000001", "2", "0/1A2B3C4D", "shop"]));
        let expected = Identity {
            system_id: 7_310_000_000_000_000_001,
            timeline: 2,
            wal_end: Lsn(0x1A2B_3C4D),
            dbname: "shop".to_owned(),
        };
        assert_eq!(identity, Some(expected));
        assert_eq!(parse_identity(&row(["x", "2", "0/1", "shop"])), None);
        assert_eq!(parse_identity(&[]), None);
    }
}
