//! A filter that is applied to rows as they are at a position.

use serde_json::value::RawValue;

use super::{Attribute, Condition, Matcher, Sides, Term, Test, Truth, has, lower};
use crate::row::State;

/// The event whose rule about values is that of rows: it says what a value is, and not that it became so.
const STATED: &str = "snapshot";

impl Term {
    /// Whether it is about rows: about their values, their keys, or their table.
    pub fn is_about_rows(&self) -> bool {
        match &self.condition {
            Condition::Value { .. } | Condition::ValueHas { .. } | Condition::Compares { .. } => true,
            Condition::Is { of, .. } => matches!(of, Attribute::Table | Attribute::Key),
            Condition::Has { of, .. } => *of == Attribute::Key,
            Condition::Committed { .. }
            | Condition::Word { .. }
            | Condition::Touched { .. }
            | Condition::Changed { .. } => false,
        }
    }
}

impl Matcher {
    /// Whether a row is part of the answer; `None` if what is known of it does not tell. The conditions are about rows.
    pub fn holds(&self, table: &str, key: &str, state: &State) -> Option<bool> {
        if !self.terms.iter().all(|term| about_row(&term.condition, table, key).is_none_or(|is| is != term.not)) {
            return Some(false);
        }
        let tests = self.tables.get(table).map(Vec::as_slice).unwrap_or_default();
        let truths: Vec<Truth> = tests.iter().map(|test| test.truth_of_row(state)).collect();
        match (truths.contains(&Truth::No), truths.contains(&Truth::Unknown)) {
            (true, _) => Some(false),
            (false, true) => None,
            (false, false) => Some(true),
        }
    }
}

impl Test {
    fn truth_of_row(&self, state: &State) -> Truth {
        let json = state.get(&self.field).and_then(|known| known.value());
        let sides = match json.and_then(|json| serde_json::from_str::<&RawValue>(json).ok()) {
            Some(value) => Sides::Known(None, Some(value)),
            None => Sides::Unknown(None),
        };
        self.judged(self.asks.truth(STATED, &sides))
    }
}

/// Whether a condition on table or key holds; `None` for the others.
fn about_row(condition: &Condition, table: &str, key: &str) -> Option<bool> {
    let text = |of: &Attribute| if *of == Attribute::Table { table } else { key };
    match condition {
        Condition::Is { of, one_of } => Some(one_of.iter().flatten().any(|value| *value == text(of))),
        Condition::Has { of, one_of } => Some(has(text(of), &lower(one_of))),
        _ => None,
    }
}
