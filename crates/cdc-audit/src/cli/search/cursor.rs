//! Where a page ended: a place in the order of the answer, and the question that it belongs to.

use audit_core::mac::write_sha256;
use audit_core::position::Micros;
use audit_core::search::Moment;
use audit_history::question::filter::{Condition, Filter, Term};

use crate::error::{CliError, code};

pub fn write(moment: Moment, filter: &Filter) -> String {
    format!("{}@{}@{}", moment.position, moment.committed_at.0, digest(filter))
}

pub fn read(cursor: &str, filter: &Filter) -> Result<Moment, CliError> {
    let mut parts = cursor.split('@');
    let position = parts.next().and_then(|text| text.parse().ok());
    let at = parts.next().and_then(|text| text.parse().ok()).map(Micros);
    let (Some(position), Some(committed_at), Some(of), None) = (position, at, parts.next(), parts.next()) else {
        let hint = "give what the page before printed as --before, or `next` of --page";
        return Err(CliError::new("--before is no cursor").hint(hint.to_owned()).code(code::USAGE));
    };
    if of != digest(filter) {
        return Err(CliError::new("the cursor belongs to another question")
            .hint(
                "ask with the same filters as before, or without --before; write times such as `3d` as dates"
                    .to_owned(),
            )
            .code(code::USAGE));
    }
    Ok(Moment { committed_at, position })
}

/// Tells one filter from another. ⚠ The start of the span is part of the question, but not of the digest: `since:3d`
/// moves on between two pages, and what is older than a page is not changed by that, except at the far end.
fn digest(filter: &Filter) -> String {
    let lasting = |term: &&Term| !matches!(term.condition, Condition::Committed { .. });
    let terms: Vec<String> = filter.terms.iter().filter(lasting).map(ToString::to_string).collect();
    let mut digest = String::new();
    write_sha256(terms.join(" ").as_bytes(), &mut digest);
    digest.chars().skip_while(|c| *c != ':').skip(1).take(8).collect()
}
