//! Memory stays within its limit.
