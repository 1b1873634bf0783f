//! What people ask, in their words, turned into what the stores understand. Pure: nothing here reads a store or a clock.

pub mod filter;
pub mod matcher;
pub mod point;
pub mod time;
pub mod value;
pub mod zone;
