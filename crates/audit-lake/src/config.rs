//! The keys of a lake sink, and the checks of their values.

use audit_config::{ByteSize, Problems, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::partition::Partitioning;
use crate::place::{Place, StoreConfig};
use crate::tenant_names::{self, TENANT};

/// A lake: for each captured table one Delta table of Parquet files, in folders by UTC commit date.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LakeConfig {
    /// The lake's own folder or part of a bucket: a path, or a URL: `file:///`, `s3://bucket/prefix`, `gs://bucket/prefix`,
    /// `az://container/prefix` or `abfss://container@account.dfs.core.windows.net/prefix`. It belongs to one source.
    ///
    /// With `{tenant}` in it, in a bucket's name or in a path, each tenant's versions lie in a store of their own: see `home`.
    #[schemars(example = &"/var/lib/cdc-audit/lake")]
    pub url: String,
    /// Only where `url` has `{tenant}`, and then needed: where the lake's checkpoint lies, and what belongs to no tenant: rows whose table has no
    /// `tenant` column (`[[tables]]`), or that have no value there, and `gap` and `error` records. A place beside the tenants', in the same kind
    /// of store. Which tenants there are is noted here.
    #[serde(default)]
    #[schemars(example = &"s3://acme-audit/shop")]
    pub home: Option<String>,
    /// How long the store of a tenant that was never written to is waited for, where it is not there or refuses: everything waits meanwhile. Then
    /// that tenant's rows go to `home` for good, so that a value which an application's user made up cannot stop the lake.
    #[serde(default = "tenant_wait")]
    pub tenant_wait: Span,
    /// A table's file is closed when it is this large. In a bucket it is held in memory until then: there it is closed earlier where
    /// `pipeline.memory_limit` asks for it, at about 40 MiB by default.
    #[serde(default = "file_bytes")]
    pub file_bytes: ByteSize,
    /// A table's file is closed when it has this many rows.
    #[serde(default = "file_rows")]
    pub file_rows: u64,
    /// What a table has taken in is written and committed when its first row is this old: how late a reader of the Delta log may be.
    #[serde(default = "file_age")]
    pub file_age: Span,
    /// A file that is smaller than this, and has fewer rows than `data_rows`, goes to the folder `fresh/`: readers of the Delta log see it at
    /// once, readers that list `data/` when it is rolled. `"0 B"` has every file go to `data/`; set `file_age` to some minutes then.
    #[serde(default = "data_bytes")]
    pub data_bytes: ByteSize,
    /// A file with this many rows goes to `data/`, however small it is.
    #[serde(default = "data_rows")]
    pub data_rows: u64,
    /// Fresh files are rolled into one file of `data/` when they would fill it, or when the oldest is this old: how late a reader that
    /// lists may be.
    #[serde(default = "roll_age")]
    pub roll_age: Span,
    /// Files that a roll or a compaction has replaced stay this long, for readers that still hold an older state of the Delta log.
    #[serde(default = "grace")]
    pub grace: Span,
    /// The folders of a table's files, by commit time in UTC. A table keeps what it began with.
    #[serde(default)]
    pub partition_by: Partitioning,
    /// Rows of a row group, at most.
    #[serde(default = "row_group_rows")]
    pub row_group_rows: u64,
    /// Size of a row group, at most: of its rows in memory, which are sorted before they are encoded; in files that a roll or a compaction makes
    /// it is the encoded size. What a table that is being written holds in memory.
    #[serde(default = "row_group_bytes")]
    pub row_group_bytes: ByteSize,
    /// How pages are compressed. `zstd` is smallest, `snappy` fastest; `gzip` and `none` are for readers that want them. Beyond a file's
    /// 64th column `zstd` gives way to `snappy`, for it takes memory for each column.
    #[serde(default)]
    pub compression: Compression,
    /// Level of zstd, 1 to 19. Higher is slower and hardly smaller.
    #[serde(default = "zstd_level")]
    #[schemars(range(min = 1, max = 19))]
    pub zstd_level: i32,
    /// Some readers list the folders in place of reading the Delta log: files are then never rewritten.
    #[serde(default = "listing_readers")]
    pub listing_readers: bool,
    /// How often the daemon compacts the lake, with `listing_readers = false`. Default: never; `cdc-audit compact` does it too.
    #[serde(default)]
    #[schemars(example = &"1 d")]
    pub compact_every: Option<Span>,
    /// The size that compaction makes files of a partition.
    #[serde(default = "compact_bytes")]
    pub compact_bytes: ByteSize,
    /// Partitions older than this are never compacted. Keep it below the age at which a rule of the bucket moves files to a colder storage class:
    /// to read them there costs money, and stores do not say where a file is.
    #[serde(default = "compact_within")]
    pub compact_within: Span,
    /// Keep the whole row before each change too, as a struct `cdc_before`. Without it the old values of changed columns are in
    /// `cdc_changes`.
    #[serde(default)]
    pub keep_before: bool,
    #[serde(default)]
    pub store: StoreConfig,
}

/// How pages of Parquet are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    #[default]
    Zstd,
    Snappy,
    Gzip,
    None,
}

fn tenant_wait() -> Span {
    Span::mins(10)
}

fn file_bytes() -> ByteSize {
    ByteSize::mib(128)
}

fn file_rows() -> u64 {
    10_000_000
}

fn file_age() -> Span {
    Span::secs(5)
}

fn data_bytes() -> ByteSize {
    ByteSize::mib(16)
}

fn compact_bytes() -> ByteSize {
    ByteSize::mib(512)
}

fn compact_within() -> Span {
    Span::secs(30 * 86_400)
}

fn data_rows() -> u64 {
    500_000
}

fn roll_age() -> Span {
    Span::mins(60)
}

fn grace() -> Span {
    Span::mins(60)
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
    /// The defaults, with this `url`.
    pub fn at(url: impl Into<String>) -> LakeConfig {
        LakeConfig {
            url: url.into(),
            home: None,
            tenant_wait: tenant_wait(),
            file_bytes: file_bytes(),
            file_rows: file_rows(),
            file_age: file_age(),
            data_bytes: data_bytes(),
            data_rows: data_rows(),
            roll_age: roll_age(),
            grace: grace(),
            partition_by: Partitioning::default(),
            compression: Compression::default(),
            row_group_rows: row_group_rows(),
            row_group_bytes: row_group_bytes(),
            zstd_level: zstd_level(),
            listing_readers: listing_readers(),
            compact_every: None,
            compact_bytes: compact_bytes(),
            compact_within: compact_within(),
            keep_before: false,
            store: StoreConfig::default(),
        }
    }

    /// Where the checkpoint is stored, together with everything except the tenants' versions.
    pub fn home_url(&self) -> &str {
        self.home.as_deref().unwrap_or(&self.url)
    }

    pub(crate) fn has_tenants(&self) -> bool {
        self.url.contains(TENANT)
    }

    /// Checks the places of home and of tenants against each other.
    fn check_tenants(&self, problems: &mut Problems) {
        let Some(home) = &self.home else {
            let hint = "give a place for what belongs to no tenant: home = \"s3://acme-audit/shop\"";
            return problems.push("home", "missing, for `url` names tenants", hint);
        };
        if !self.has_tenants() {
            let hint = "leave it out, or name tenants: url = \"s3://tenant-{tenant}-audit/shop\"";
            return problems.push("home", "given where `url` names no tenants", hint);
        }
        if home.contains(TENANT) {
            let hint = "give one place, beside the tenants': \"s3://acme-audit/shop\"";
            return problems.push("home", "names tenants, but is what belongs to none", hint);
        }
        let Ok(home) = Place::parse(home) else { return };
        if !tenant_names::is_sound(&self.url) {
            let hint = "let it stand once in the bucket's name, with room for 34 characters, or once in the path";
            return problems.push("url", "`{tenant}` cannot stand there", hint);
        }
        // One name is kept as it is, the other one is not.
        for tenant in ["acme", "A/b"] {
            match tenant_names::place_of(&self.url, &home, tenant) {
                Ok(place) if place.is_like(&home) => {}
                Ok(_) => {
                    let hint = "give both in one cloud, or both on disk: one section `store` holds for all";
                    return problems.push("home", "another kind of store than `url`", hint);
                }
                Err(_) => {
                    let hint = "give places beside each other, such as \"s3://acme-audit/tenants/{tenant}\" and \"s3://acme-audit/home\"";
                    return problems.push(
                        "url",
                        "no place for tenants, or one that lies in the home or around it",
                        hint,
                    );
                }
            }
        }
    }

    /// Checks the rules that the types of the fields cannot express.
    pub fn check(&self, problems: &mut Problems) {
        if self.home.is_some() || self.has_tenants() {
            self.check_tenants(problems);
        }
        let key = if self.home.is_some() { "home" } else { "url" };
        match Place::parse(self.home_url()) {
            Ok(Place::Bucket(bucket)) => problems.scope("store", |problems| self.store.check(&bucket, problems)),
            Ok(Place::Folder(_)) if self.store == StoreConfig::default() => {}
            Ok(Place::Folder(_)) => {
                let hint = "leave the section out, or give a url that begins with s3://, gs://, az:// or abfss://";
                problems.push("store", "a lake in a folder takes none of these keys", hint);
            }
            Err(error) => problems.push(key, error.to_string(), error.hint().as_deref()),
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
        for (key, age) in [("file_age", self.file_age), ("roll_age", self.roll_age)] {
            if age < Span::secs(1) {
                problems.push(key, "too short", "give at least \"1 s\"");
            }
        }
        if self.compact_bytes < ByteSize::mib(16) {
            problems.push("compact_bytes", "too small", "give at least \"16 MiB\"");
        }
        if self.compact_every.is_some() && self.listing_readers {
            let hint = "leave it out, or say `listing_readers = false` if every reader reads the Delta log";
            problems.push("compact_every", "readers that list would see versions twice while files are replaced", hint);
        }
        if self.compact_every.is_some_and(|every| every < Span::mins(1)) {
            problems.push("compact_every", "too short", "give at least \"1 min\"");
        }
        if !(1..=19).contains(&self.zstd_level) {
            problems.push("zstd_level", "out of range", "give 1 to 19");
        }
    }
}
