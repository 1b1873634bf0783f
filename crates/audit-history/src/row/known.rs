//! What is known of a value: [`Known`], and why it is not: [`Why`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use audit_core::method::Method;
use audit_core::position::Position;

/// A row's tracked columns under the names that they have now.
pub type State = BTreeMap<String, Known>;

/// What is known of a column's value. Values are JSON texts, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// A version states it.
    Stated(Arc<str>),
    /// It is taken from an earlier version.
    Derived(Arc<str>),
    Unknown(Why),
}

impl Known {
    pub const NULL: &str = "null";

    /// The value, if it is known.
    pub fn value(&self) -> Option<&str> {
        match self {
            Known::Stated(json) | Known::Derived(json) => Some(json),
            Known::Unknown(_) => None,
        }
    }

    pub fn why(&self) -> Option<Why> {
        match self {
            Known::Unknown(why) => Some(*why),
            Known::Stated(_) | Known::Derived(_) => None,
        }
    }

    pub fn is_derived(&self) -> bool {
        matches!(self, Known::Derived(_))
    }

    /// The same value, marked as taken from an earlier version.
    pub(super) fn derived(&self) -> Known {
        match self {
            Known::Stated(json) | Known::Derived(json) => Known::Derived(json.clone()),
            Known::Unknown(why) => Known::Unknown(*why),
        }
    }
}

/// Why a value, or whether it changed, is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// No earlier version of the row has it.
    First,
    /// Changes were lost at this position.
    Gap(Position),
    /// The database went back: its WAL does not continue what was captured before.
    Epoch,
    /// A change was quarantined at this position.
    Error(Position),
    /// The rules under which the versions were captured were not recorded.
    Rules,
    /// Not every update made a version.
    NotCaptured,
    /// The column is new, or has another type, from this shape on.
    Shape(u32),
    /// Updates of this column alone make no version.
    IgnoredAlone,
    /// Two values under this method cannot be compared.
    Protected(Method),
    /// The method of protection or its key changed.
    Rekeyed,
    /// What was masked inside the value cannot be compared.
    Masked,
    /// A large value that was unchanged, and not sent.
    Toast,
    /// The value was too large to be stored.
    TooLarge,
    /// Only members of the document were recorded.
    Members,
}

impl Why {
    /// The word for programs.
    pub fn name(self) -> &'static str {
        match self {
            Why::First => "first",
            Why::Gap(_) => "gap",
            Why::Epoch => "epoch",
            Why::Error(_) => "error",
            Why::Rules => "rules",
            Why::NotCaptured => "not_captured",
            Why::Shape(_) => "shape",
            Why::IgnoredAlone => "ignore_alone",
            Why::Protected(_) => "protected",
            Why::Rekeyed => "rekeyed",
            Why::Masked => "masked",
            Why::Toast => "toast",
            Why::TooLarge => "too_large",
            Why::Members => "members",
        }
    }
}

/// The reason for people.
impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::First => f.write_str("no earlier version of the row"),
            Why::Gap(at) => write!(f, "changes were lost at {at}"),
            Why::Epoch => f.write_str("the database went back to an earlier state"),
            Why::Error(at) => write!(f, "a change was quarantined at {at}"),
            Why::Rules => f.write_str("captured before rules were recorded"),
            Why::NotCaptured => f.write_str("not every update was captured"),
            Why::Shape(version) => write!(f, "new, or of another type, since shape {version}"),
            Why::IgnoredAlone => f.write_str("updates of this column alone are not captured (ignore_alone)"),
            Why::Protected(method) => write!(f, "protected ({}): values cannot be compared", method.name()),
            Why::Rekeyed => f.write_str("protected in another way before"),
            Why::Masked => f.write_str("what is masked inside cannot be compared"),
            Why::Toast => f.write_str("large value, unchanged and not sent"),
            Why::TooLarge => f.write_str("too large to be stored here"),
            Why::Members => f.write_str("only changed members were recorded"),
        }
    }
}
