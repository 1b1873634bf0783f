//! What people ask, in their words, turned into what the stores understand. Pure: nothing here reads a store or a clock.

pub mod point;
pub mod time;
pub mod zone;
