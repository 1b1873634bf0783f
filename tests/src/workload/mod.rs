//! What happens in the source: written by hand, or by chance.

pub mod random;
pub mod values;
