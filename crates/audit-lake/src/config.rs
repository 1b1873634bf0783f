//! The keys of a lake sink, and what they must fulfil.

use audit_config::{ByteSize, Problems, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::place::{Place, StoreConfig};

/// A lake: for each captured table one Delta table of Parquet files, in folders by UTC commit date.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LakeConfig {
    /// The lake's own folder or part of a bucket: a path, or a URL: `file:///`, `s3://bucket/prefix`, `gs://bucket/prefix`,
    /// `az://container/prefix` or `abfss://container@account.dfs.core.windows.net/prefix`. It belongs to one source.
    #[schemars(example = &"/var/lib/cdc-audit/lake")]
    pub url: String,
    /// A table's file is closed when it is this large. In a bucket it is held in memory until then: there it is closed earlier where
    /// `pipeline.memory_limit` asks for it, at about 40 MiB by default.
    #[serde(default = "file_bytes")]
    pub file_bytes: ByteSize,
    /// A table's file is closed when it has this many rows.
    #[serde(default = "file_rows")]
    pub file_rows: u64,
    /// A table's file is closed when its first row is this old: how late a reader of the lake may be.
    #[serde(default = "file_age")]
    pub file_age: Span,
    /// Rows of a row group, at most.
    #[serde(default = "row_group_rows")]
    pub row_group_rows: u64,
    /// Encoded size of a row group, at most. What a table that is being written holds in memory.
    #[serde(default = "row_group_bytes")]
    pub row_group_bytes: ByteSize,
    /// Level of zstd, 1 to 19. Higher is slower and hardly smaller.
    #[serde(default = "zstd_level")]
    #[schemars(range(min = 1, max = 19))]
    pub zstd_level: i32,
    /// Some readers list the folders in place of reading the Delta log: files are then never rewritten.
    #[serde(default = "listing_readers")]
    pub listing_readers: bool,
    /// Keep the whole row before each change too, as a struct `cdc_before`. Without it the old values of changed columns are in
    /// `cdc_changes`.
    #[serde(default)]
    pub keep_before: bool,
    #[serde(default)]
    pub store: StoreConfig,
}

fn file_bytes() -> ByteSize {
    ByteSize::mib(128)
}

fn file_rows() -> u64 {
    10_000_000
}

fn file_age() -> Span {
    Span::mins(5)
}

fn row_group_rows() -> u64 {
    128 * 1024
}

fn row_group_bytes() -> ByteSize {
    ByteSize::mib(16)
}

fn zstd_level() -> i32 {
    3
}

fn listing_readers() -> bool {
    true
}

impl LakeConfig {
    /// The defaults, at `url`.
    pub fn at(url: impl Into<String>) -> LakeConfig {
        LakeConfig {
            url: url.into(),
            file_bytes: file_bytes(),
            file_rows: file_rows(),
            file_age: file_age(),
            row_group_rows: row_group_rows(),
            row_group_bytes: row_group_bytes(),
            zstd_level: zstd_level(),
            listing_readers: listing_readers(),
            keep_before: false,
            store: StoreConfig::default(),
        }
    }

    /// What the types cannot say.
    pub fn check(&self, problems: &mut Problems) {
        match Place::parse(&self.url) {
            Ok(Place::Bucket(bucket)) => problems.scope("store", |problems| self.store.check(&bucket, problems)),
            Ok(Place::Folder(_)) if self.store == StoreConfig::default() => {}
            Ok(Place::Folder(_)) => {
                let hint = "leave the section out, or give a url that begins with s3://, gs://, az:// or abfss://";
                problems.push("store", "a lake in a folder takes none of these keys", hint);
            }
            Err(error) => problems.push("url", error.to_string(), error.hint().as_deref()),
        }
        if self.file_bytes < ByteSize::mib(1) {
            problems.push("file_bytes", "too small", "give at least \"1 MiB\"");
        }
        if self.row_group_bytes < ByteSize::mib(1) || self.row_group_bytes > ByteSize::gib(1) {
            problems.push("row_group_bytes", "out of range", "give \"1 MiB\" to \"1 GiB\"");
        }
        for (key, rows) in [("file_rows", self.file_rows), ("row_group_rows", self.row_group_rows)] {
            if rows < 1000 {
                problems.push(key, "too small", "give at least 1000");
            }
        }
        if self.file_age < Span::secs(1) {
            problems.push("file_age", "too short", "give at least \"1 s\"");
        }
        if !(1..=19).contains(&self.zstd_level) {
            problems.push("zstd_level", "out of range", "give 1 to 19");
        }
    }
}
