//! Compares whole outputs for one sample configuration that contains every construct the crate understands.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::Path;

use expect_test::{Expect, expect};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ByteSize, Problems, SecretRef, Span};

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The captured database.
    source: Source,
    /// Rules in order; a later one that matches adds to and overrides earlier ones.
    #[serde(default)]
    tables: Vec<Rule>,
    /// Where versions go. A sink has a name of its own choosing and a type; several of one type may run.
    sinks: BTreeMap<String, Sink>,
    #[serde(default)]
    limits: Limits,
    /// Writes logs as JSON.
    #[serde(default)]
    json_logs: bool,
    /// Serves metrics over HTTP.
    metrics: Option<Metrics>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Source {
    /// Names the source in every record.
    /// Never change it: checkpoints and the trail that was written so far are known by it, and a daemon that is started with another name begins anew.
    ///
    /// - letters, digits and `_`
    /// - at most 40 characters
    #[schemars(example = &"shop")]
    name: String,
    #[schemars(example = &"postgres://cdc_audit@db.internal/shop")]
    url: String,
    /// Where the password lies.
    password: Option<SecretRef>,
    /// How the server's certificate is checked.
    #[serde(default)]
    tls: Tls,
    /// Whether two words are enough.
    #[serde(default)]
    mode: Mode,
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Tls {
    /// No TLS.
    Disable,
    /// Chain and host name.
    #[default]
    VerifyFull,
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    #[default]
    Fast,
    Safe,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// A table or a pattern.
    #[schemars(example = &"public.*")]
    name: String,
    /// Columns that are not kept.
    #[serde(default)]
    ignore: Vec<String>,
    /// What happens to sensitive columns.
    #[serde(default)]
    #[schemars(extend("example" = {"email": "hash", "ssn": ["full"]}))]
    protect: BTreeMap<String, Methods>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Methods {
    One(Method),
    Several(Vec<Method>),
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Method {
    Full,
    Hash,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct Sink {
    #[serde(flatten)]
    kind: Kind,
    #[serde(flatten)]
    batch: Batch,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Kind {
    /// The hot table, in any PostgreSQL.
    Hot(Hot),
    /// Parquet in an object store.
    Lake {
        /// A folder of its own.
        #[schemars(example = &"file:///var/lib/cdc-audit/lake")]
        url: String,
    },
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct Hot {
    #[schemars(example = &"postgres://cdc_audit@audit.internal/audit")]
    url: String,
    /// Connections.
    #[serde(default = "two")]
    #[schemars(range(min = 1, max = 8))]
    writers: u8,
}

fn two() -> u8 {
    2
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct Batch {
    /// A batch is written when it is this old, even if it is small.
    flush_after: Span,
    /// A batch is written when it is this large.
    batch_size: ByteSize,
}

impl Default for Batch {
    fn default() -> Batch {
        Batch { flush_after: Span::secs(5), batch_size: ByteSize::mib(16) }
    }
}

/// What the daemon may use.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Limits {
    memory: ByteSize,
    retry: Retry,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { memory: ByteSize::mib(256), retry: Retry { factor: 2.0, times: None } }
    }
}

/// How failures are retried.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Retry {
    factor: f64,
    /// Gives up after this many.
    times: Option<u32>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Metrics {
    /// Address and port.
    #[schemars(example = &"127.0.0.1:9187")]
    listen: std::net::SocketAddr,
}

const GOOD: &str = r#"
json_logs = true

[source]
name = "shop"
url = "postgres://ann:hunter2@db/shop"
password = { env = "SHOP_PASSWORD" }
tls = "disable"

[[tables]]
name = "public.users"
protect = { email = "hash", ssn = ["hash", "full"] }

[sinks.hot]
type = "hot"
url = "host=audit password=hunter2"
batch_size = 1048576

[sinks."cold store"]
type = "lake"
url = "file:///lake"
flush_after = "5min"
"#;

fn parse(text: &str) -> Result<Config, Problems> {
    crate::parse(Path::new("config.toml"), text, |_: &Config, _| {})
}

/// Compares all problems of `text`. None of them may show a value.
fn check(text: &str, expect: Expect) {
    let problems = parse(text).unwrap_err().to_string();
    assert!(!problems.contains("hunter2"), "a value is shown: {problems}");
    expect.assert_eq(&problems);
}

#[test]
fn a_good_file_loads_and_is_shown_whole_without_passwords() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), GOOD).unwrap();
    let config = crate::load(file.path(), |_: &Config, _| {}).unwrap();
    let shown = crate::effective(&config).unwrap();
    expect![[r#"
        json_logs = true

        [source]
        name = "shop"
        url = "postgres://ann:…@db/shop"
        tls = "disable"
        mode = "fast"

        [source.password]
        env = "SHOP_PASSWORD"

        [[tables]]
        name = "public.users"
        ignore = []

        [tables.protect]
        email = "hash"
        ssn = ["hash", "full"]

        [sinks."cold store"]
        type = "lake"
        url = "file:///lake"
        flush_after = "5 min"
        batch_size = "16 MiB"

        [sinks.hot]
        type = "hot"
        url = "host=audit password=…"
        writers = 2
        flush_after = "5 s"
        batch_size = "1 MiB"

        [limits]
        memory = "256 MiB"

        [limits.retry]
        factor = 2.0
    "#]]
    .assert_eq(&shown);
    parse(&shown).unwrap();
}

#[test]
fn all_problems_come_in_one_go() {
    check(
        r#"
jsn_logs = true

[source]
name = 7
password = { env = "A", file = "hunter2" }
tls = "hunter2"
mode = ["hunter2"]
colour = "hunter2"

[[tables]]
name = "public.*"

[[tables]]
ignored = []
protect = { email = "hush", ssn = ["hash", "hunter2"], born = 3 }

[sinks.hot]
type = "hot"
url = 2026-01-01
batch_sise = "hunter2"
flush_after = "hunter2"
writers = 9

[sinks.lake]
type = "lak"

[sinks."odd one"]
url = "hunter2"

[limits]
memory = "99999999 TiB"
retry = { factor = "hunter2", times = 99999999999999999999999999999999999999999 }

[metrics]
"#,
        expect![[r#"
            config.toml has 22 problems
              line 2, jsn_logs: unknown key
                hint: did you mean `json_logs`?
              line 4, source.url: missing
              line 5, source.name: expected a string, found an integer
              line 6, source.password: expected exactly one of `env`, `file`
              line 7, source.tls: unknown value
                hint: known here: `disable`, `verify-full`
              line 8, source.mode: expected one of `fast`, `safe`, found a list
              line 9, source.colour: unknown key
                hint: known here: `name`, `url`, `password`, `tls`, `mode`
              line 14, tables[1].name: missing
                hint: A table or a pattern.
              line 15, tables[1].ignored: unknown key
                hint: did you mean `ignore`?
              line 16, tables[1].protect.email: unknown value
                hint: did you mean `hash`?
              line 16, tables[1].protect.ssn[1]: unknown value
                hint: known here: `full`, `hash`
              line 16, tables[1].protect.born: expected one of `full`, `hash` or a list, found an integer
              line 20, sinks.hot.url: expected a string, found a date or time without quotes
              line 21, sinks.hot.batch_sise: unknown key
                hint: did you mean `batch_size`?
              line 22, sinks.hot.flush_after: not a duration
                hint: write a whole number and ms, s, min, h or d, as in "5 s"
              line 23, sinks.hot.writers: out of range, expected a number from 1 to 8
              line 26, sinks.lake.type: unknown value
                hint: did you mean `lake`?
              line 28, sinks."odd one".type: missing
                hint: one of `hot`, `lake`
              line 32, limits.memory: too large
              line 33, limits.retry.factor: expected a number, found a string
              line 33, limits.retry.times: too large
              line 35, metrics.listen: missing
                hint: Address and port."#]],
    );
}

#[test]
fn sections_that_are_missing_are_named() {
    check(
        "",
        expect![[r#"
        config.toml has 2 problems
          source: missing
            hint: The captured database.
          sinks: missing
            hint: Where versions go."#]],
    );
}

#[test]
fn syntax_errors_come_with_their_lines() {
    check(
        "[source]\nname = hunter2\nurl = \"hunter2\n[sinks]\n[sinks]\n",
        expect![[r#"
        config.toml has 3 problems
          line 2: string values must be quoted, expected literal string
          line 3: invalid basic string, expected `"`
          line 5: duplicate key"#]],
    );
}

#[test]
fn what_only_the_type_can_refuse_has_its_path_but_not_its_value() {
    let text = format!("{GOOD}\n[metrics]\nlisten = \"hunter2\"");
    check(
        &text,
        expect![[r#"
        config.toml has 1 problem
          line 25, metrics.listen: invalid socket address syntax"#]],
    );
}

#[test]
fn an_owners_problems_have_the_same_form() {
    let owner = |config: &Config, problems: &mut Problems| {
        problems.scope("sinks", |problems| {
            for name in config.sinks.keys() {
                problems.scope(&crate::quote(name), |problems| problems.push("writers", "too few", None));
            }
        });
        problems.push("tables[0].name", "matches nothing", "see `cdc-audit check`");
        problems.push("limits.memory", "too small", None);
    };
    let problems = crate::parse(Path::new("config.toml"), GOOD, owner).unwrap_err();
    expect![[r#"
        config.toml has 4 problems
          limits.memory: too small
          line 11, tables[0].name: matches nothing
            hint: see `cdc-audit check`
          line 14, sinks.hot.writers: too few
          line 19, sinks."cold store".writers: too few"#]]
    .assert_eq(&problems.to_string());
}

#[test]
fn a_file_that_cannot_be_read_is_one_problem() {
    let problems = crate::load(Path::new("/no/such.toml"), |_: &Config, _| {}).unwrap_err();
    expect![[r#"
        /no/such.toml has 1 problem
          cannot be read: No such file or directory (os error 2)
            hint: name the file with --config; `cdc-audit config` prints one with every key documented"#]]
    .assert_eq(&problems.to_string());
}

#[test]
fn the_reference_documents_every_key_and_loads() {
    let text = crate::reference::<Config>();
    expect![[r##"
        # Writes logs as JSON.
        # json_logs = false

        # The captured database.
        [source]
        # Names the source in every record. Never change it: checkpoints and the trail that was written so
        # far are known by it, and a daemon that is started with another name begins anew.
        #
        # - letters, digits and `_`
        # - at most 40 characters
        name = "shop" # required

        url = "postgres://cdc_audit@db.internal/shop" # required

        # Where the password lies.
        # - { env = "NAME" }: The environment variable that holds the secret.
        # - { file = "/run/secrets/name" }: The file that holds the secret; one line break at its end is not
        # part of it.
        # password = { env = "NAME" } # an example; not set by default

        # How the server's certificate is checked.
        # - "disable": No TLS.
        # - "verify-full": Chain and host name.
        # tls = "verify-full"

        # Whether two words are enough.
        # One of "fast", "safe".
        # mode = "fast"

        # Rules in order; a later one that matches adds to and overrides earlier ones.
        # [[tables]]
        # A table or a pattern.
        # name = "public.*" # required

        # Columns that are not kept.
        # ignore = []

        # What happens to sensitive columns.
        # protect = { email = "hash", ssn = ["full"] } # an example; empty by default

        # Where versions go. A sink has a name of its own choosing and a type; several of one type may run.

        # The hot table, in any PostgreSQL.
        [sinks.hot]
        type = "hot" # required

        url = "postgres://cdc_audit@audit.internal/audit" # required

        # Connections.
        # writers = 2

        # A batch is written when it is this old, even if it is small.
        # flush_after = "5 s"

        # A batch is written when it is this large.
        # batch_size = "16 MiB"

        # Parquet in an object store.
        # [sinks.lake]
        # type = "lake" # required

        # A folder of its own.
        # url = "file:///var/lib/cdc-audit/lake" # required

        # A batch is written when it is this old, even if it is small.
        # flush_after = "5 s"

        # A batch is written when it is this large.
        # batch_size = "16 MiB"

        # What the daemon may use.
        [limits]
        # memory = "256 MiB"

        # How failures are retried.
        # [limits.retry]
        # factor = 2.0 # required

        # Gives up after this many.
        # times = 0 # an example; not set by default

        # Serves metrics over HTTP.
        # [metrics]
        # Address and port.
        # listen = "127.0.0.1:9187" # required
    "##]]
    .assert_eq(&text);
    parse(&text).unwrap();
    assert!(text.lines().all(|line| !line.starts_with("# ") || line.chars().count() <= 100));
}

#[test]
fn the_reference_loads_with_every_line_uncommented() {
    let is_code = |line: &str| {
        let key = line.split(" = ").next().unwrap_or_default();
        line.starts_with('[') || line.contains(" = ") && crate::quote(key) == key
    };
    let text = crate::reference::<Config>();
    let uncommented = text.lines().map(|line| match line.strip_prefix("# ") {
        Some(code) if is_code(code) => code,
        _ => line,
    });
    let uncommented = uncommented.collect::<Vec<_>>().join("\n");
    let config = parse(&uncommented).unwrap_or_else(|problems| panic!("{problems}\n{uncommented}"));
    assert_eq!(config.sinks.len(), 2);
    assert!(config.metrics.is_some() && config.tables.len() == 1);
}

#[test]
fn no_value_is_shown_wherever_it_stands() {
    for (index, line) in GOOD.lines().enumerate() {
        let Some((key, _)) = line.split_once(" = ") else { continue };
        for value in ["\"hunter2\"", "[\"hunter2\"]", "{ a = \"hunter2\" }", "hunter2"] {
            let mut lines: Vec<_> = GOOD.lines().map(str::to_owned).collect();
            lines[index] = format!("{key} = {value}");
            if let Err(problems) = parse(&lines.join("\n")) {
                let shown = format!("{problems} {problems:?}");
                assert!(!shown.contains("hunter2"), "{shown}");
            }
        }
    }
}

/// A type that contains itself, and a tagged enum that is not flattened.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Tree {
    /// At least one.
    steps: Vec<Step>,
    store: Option<Kind>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "do", rename_all = "lowercase", deny_unknown_fields)]
enum Step {
    /// Stands still.
    Wait {
        span: Span,
    },
    /// Begins anew.
    Again(Box<Tree>),
    Stop,
}

fn parse_tree(text: &str) -> Result<Tree, Problems> {
    crate::parse(Path::new("tree.toml"), text, |_: &Tree, _| {})
}

#[test]
fn types_that_contain_themselves_are_checked_and_documented() {
    let good = "steps = [{ do = 'again', steps = [{ do = 'stop' }] }]\nstore = { type = 'hot', url = '' }";
    parse_tree(good).unwrap();
    let bad = "steps = [{ do = 'again', steps = [{ do = 'stop', spam = 1 }, { do = 'wait', span = '5' }] }]\n\
               store = { type = 'lake', url = '', writers = 1 }";
    expect![[r#"
        tree.toml has 3 problems
          line 1, steps[0].steps[0].spam: unknown key
            hint: known here: `do`
          line 1, steps[0].steps[1].span: not a duration
            hint: write a whole number and ms, s, min, h or d, as in "5 s"
          line 2, store.writers: unknown key
            hint: known here: `type`, `url`"#]]
    .assert_eq(&parse_tree(bad).unwrap_err().to_string());
    let text = crate::reference::<Tree>();
    let top: Vec<_> = text.lines().take_while(|line| !line.contains("steps.steps")).collect();
    expect![[r##"
        # A type that contains itself, and a tagged enum that is not flattened.

        # At least one.

        # Stands still.
        [[steps]]
        do = "wait" # required

        span = "1 s" # required

        # Begins anew.
        # [[steps]]
        # do = "again" # required

        # At least one.

        # Stands still."##]]
    .assert_eq(&top.join("\n"));
    parse_tree(&text).unwrap();
}
