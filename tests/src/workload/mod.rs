//! Workloads for the source: random ones and their values.

pub mod random;
pub mod values;
