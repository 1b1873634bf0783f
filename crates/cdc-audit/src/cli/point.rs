//! A point of the whole source, as people name it, and the position that it stands for.

use audit_core::position::{Micros, Position};
use audit_history::Timeline;
use audit_history::question::point::Point;
use audit_history::question::time::Clock;

use super::when::time;
use crate::error::{CliError, code};
use crate::output::note;

pub fn read(text: &str, clock: &Clock) -> Result<Point, CliError> {
    Point::read(text, clock).map_err(|error| CliError::of(&error).hint(error.hint()).code(code::USAGE))
}

/// The position before which everything counts. ⚠ Says so if later transactions have an earlier time.
pub async fn before(store: &Timeline, source: &str, point: &Point, clock: &Clock) -> Result<Position, CliError> {
    let found = store.resolve(source, point).await?.ok_or_else(|| no_such(point))?;
    if let Point::Time(at) = point {
        say_if_back(store, source, *at, found, clock).await?;
    }
    Ok(found)
}

fn no_such(point: &Point) -> CliError {
    match point {
        Point::Version(_) | Point::Back(_) => CliError::new(format!("{point} is a version of one row"))
            .hint("name a time, a position, \"before POSITION\" or \"before xid:N\"".to_owned())
            .code(code::USAGE),
        Point::BeforeXid(xid) => {
            CliError::new(format!("transaction {xid} has no versions in what is read")).code(code::NOT_FOUND)
        }
        _ => CliError::new("nothing is recorded yet").code(code::NOT_FOUND),
    }
}

async fn say_if_back(
    store: &Timeline,
    source: &str,
    at: Micros,
    before: Position,
    clock: &Clock,
) -> Result<(), CliError> {
    if let Some(position) = store.went_back(source, at, before).await? {
        note(format!(
            "The source's clock went back: what was committed from {position} on comes after this point, although its time \
             is earlier than {}.",
            time(clock, at)
        ));
    }
    Ok(())
}
