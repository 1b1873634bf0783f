//! The PostgreSQL side: everything that speaks to the captured database.

pub mod replication;
