//! Whether two stored values of one column are the same value.

use audit_core::json::{equal, same_number, unquote};
use audit_core::method::Method;
use audit_core::shape::{ColumnRules, InsideRules};
use audit_core::value::Kind;

use super::known::{Known, Why};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Same,
    Differs,
    Unknown(Why),
}

/// Compares two values of a column, which are JSON texts, by its type and under its rules. Both were stored under the
/// same rules. ⚠ Protected values are compared only as far as anyone who reads them could.
pub fn compare(kind: Option<&Kind>, rules: Option<&ColumnRules>, old: &str, new: &str) -> Verdict {
    match rules.and_then(|rules| rules.protection.as_ref()) {
        Some(protection) => protected(protection.method, old, new),
        None => {
            let same = same_value(kind, old, new);
            match rules.and_then(|rules| rules.inside.as_ref()).filter(|inside| hides(inside, same, old, new)) {
                Some(_) => Verdict::Unknown(Why::Masked),
                None => verdict(same),
            }
        }
    }
}

fn verdict(same: bool) -> Verdict {
    if same { Verdict::Same } else { Verdict::Differs }
}

fn protected(method: Method, old: &str, new: &str) -> Verdict {
    let unknown = Verdict::Unknown(Why::Protected(method));
    // All methods but `full` keep NULL.
    let nulls = (old == Known::NULL, new == Known::NULL);
    match method {
        Method::Full | Method::Drop => unknown,
        _ if nulls.0 || nulls.1 => verdict(nulls.0 == nulls.1),
        Method::Partial if old == new => unknown,
        Method::Partial => Verdict::Differs,
        _ if old == new => Verdict::Same,
        Method::Encrypt => unknown,
        Method::Hash | Method::Token if key(old) == key(new) => Verdict::Differs,
        Method::Hash | Method::Token => Verdict::Unknown(Why::Rekeyed),
    }
}

/// Method and key of a stored hash or token: what comes before its last colon.
fn key(stored: &str) -> Option<&str> {
    stored.rsplit_once(':').map(|(key, _)| key)
}

fn same_value(kind: Option<&Kind>, old: &str, new: &str) -> bool {
    match kind {
        Some(Kind::Jsonb | Kind::Array(_)) => equal(old, new),
        Some(Kind::Int2 | Kind::Int4 | Kind::Int8 | Kind::Float4 | Kind::Float8 | Kind::Numeric(_)) => {
            let nulls = [old, new].map(|value| value == Known::NULL);
            nulls[0] == nulls[1] && same_number(&unquote(old), &unquote(new))
        }
        _ => old == new || [old, new].iter().all(|value| value.starts_with('"')) && unquote(old) == unquote(new),
    }
}

/// Whether something in the values that was replaced may decide. Masks look alike for different values, and
/// ciphertexts differ for equal ones.
fn hides(inside: &InsideRules, same: bool, old: &str, new: &str) -> bool {
    match same {
        true => old != Known::NULL && (inside.patterns || old.contains("***") || old.contains("[REDACTED")),
        false => {
            inside.encrypts && [old, new].iter().any(|value| value.contains("aes256gcm:") || value.contains("aes-siv:"))
        }
    }
}
