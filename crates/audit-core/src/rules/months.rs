//! A number of whole months, as people write it: [`Months`].

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A number of whole months: `"12 mo"`, or `"2 y"` for twelve times as many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = "^\\s*[0-9]+\\s*(mo|y)\\s*$"))]
pub struct Months(u16);

/// The reason why a text is not a number of months.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a number of months: write a whole number from 1 on and mo or y, as in \"12 mo\"")]
pub struct MonthsError;

impl Months {
    /// The number of months, at least 1.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl FromStr for Months {
    type Err = MonthsError;

    fn from_str(text: &str) -> Result<Months, MonthsError> {
        let text = text.trim();
        let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let factor: u32 = match unit.trim_start() {
            "mo" => 1,
            "y" => 12,
            _ => return Err(MonthsError),
        };
        let months = digits.parse::<u32>().ok().and_then(|number| number.checked_mul(factor));
        let months = months.and_then(|months| u16::try_from(months).ok()).filter(|months| *months > 0);
        months.map(Months).ok_or(MonthsError)
    }
}

impl TryFrom<String> for Months {
    type Error = MonthsError;

    fn try_from(text: String) -> Result<Months, MonthsError> {
        text.parse()
    }
}

impl From<Months> for String {
    fn from(months: Months) -> String {
        months.to_string()
    }
}

impl fmt::Display for Months {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % 12 {
            0 => write!(f, "{} y", self.0 / 12),
            _ => write!(f, "{} mo", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_are_read_as_people_write_them() {
        let months = |text: &str| text.parse::<Months>().map(Months::get);
        assert_eq!(months("12 mo"), Ok(12));
        assert_eq!(months(" 2y "), Ok(24));
        for text in ["", "12", "mo", "0 mo", "1.5 y", "-1 mo", "12 m", "99999999999 y", "1 mo 2"] {
            assert_eq!(months(text), Err(MonthsError), "{text}");
        }
        for text in ["1 mo", "1 y", "13 mo"] {
            assert_eq!(text.parse::<Months>().unwrap().to_string(), text);
        }
    }
}
