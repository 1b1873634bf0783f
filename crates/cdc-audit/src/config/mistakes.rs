//! Mistakes that people make in a configuration, each with what they are told: line, path, message, hint.

use std::fmt::Write;
use std::path::Path;

use audit_config::Problems;
use expect_test::{Expect, expect};

use super::Config;

/// Lines 1 to 6 of every configuration here; the mistake begins in line 7.
const HEAD: &str = "\
[source]
name = 'shop'
url = 'postgres://localhost/shop'
[sinks.hot]
type = 'hot'
url = 'postgres://localhost/audit'
";

fn told(text: &str) -> String {
    let check = |config: &Config, problems: &mut Problems| config.check(problems);
    match audit_config::parse(Path::new("c.toml"), text, check) {
        Ok(_) => "nothing\n".to_owned(),
        Err(problems) => problems.to_string().split_once('\n').map_or("", |(_, rest)| rest).to_owned() + "\n",
    }
}

fn check(mistakes: &[&str], expected: Expect) {
    let mut shown = String::new();
    for mistake in mistakes {
        let _ = write!(shown, "{}\n{}", mistake.replace('\n', " ⏎ "), told(&format!("{HEAD}{mistake}\n")));
    }
    expected.assert_eq(&shown);
}

/// One problem each, with its line and a hint, and none like another.
#[test]
fn each_mistake_has_a_message_of_its_own() {
    let all = [TABLES, METHODS, RULES, OTHERS].concat();
    let mut messages = Vec::new();
    for mistake in &all {
        let told = told(&format!("{HEAD}{mistake}\n"));
        assert!(told.starts_with("  line ") && told.matches("line ").count() == 1, "{mistake}\n{told}");
        assert!(told.contains("hint: ") || told.contains("expected"), "nothing to do about {mistake}\n{told}");
        messages.push(told);
    }
    assert!(all.len() >= 40, "{} mistakes", all.len());
    messages.sort();
    assert!(messages.windows(2).all(|pair| pair[0] != pair[1]));
}

const TABLES: &[&str] = &[
    "[[tables]]\nonly = ['id']",
    "[[tables]]\nname = 'public.users'\ncolums = ['id']",
    "[[tables]]\nname = 'public.users'\nonly = ['id']\nignore = ['x']",
    "[[tables]]\nname = 'public.users'\nonly = 'id'",
    "[[tables]]\nname = 'public.users'\nonly = []",
    "[[tables]]\nname = 'public.users'\nignore = [1]",
    "[[tables]]\nname = 'public.users'\nsinks = ['cold']",
    "[[tables]]\nname = 'public.users'\nsinks = []",
    "[[tables]]\nname = 'public.users'\nstrict = 'yes'",
    "[[tables]]\nname = 'public.users'\nbaseline = 1",
    "[[tables]]\nname = 'public.users'\nprotect = { code = 'full' }\nallow = ['code']",
    "[[tables]]\nname = 'public.users'\nsubject = 'customer_id'",
    "[[tables]]\nname = 'public.users'\nsubject = ['customer_id']",
    "[[tables]]\nname = 'public.users'\nbind = ['provider_id']",
    "[protection.keys.default]\nmaster = { type = 'local', file = '/k' }\n[[tables]]\nname = 'public.users'\nbind = ['provider_*']",
    "[protection.keys.default]\nmaster = { type = 'local', file = '/k' }\n[[tables]]\nname = 'public.users'\nprotect = { code = 'full' }\nbind = ['code']",
    "[[tables]]\nname = 7",
    "[[tables]]\nname = 'public.users'\nversions_table = ''",
    "[[tables]]\nname = 'public.users'\nversions_table = 'audit.users'",
    "[[tables]]\nname = 'public.users'\nversions_table = 'Users'",
    "[[tables]]\nname = 'public.users'\nversions_table = 'users_{table'",
    "[[tables]]\nname = 'public.users'\nversions_table = 'users_{tennant}'",
    "[[tables]]\nname = 'public.users'\nversions_table = 'users_with_a_name_that_takes_more_than_fifty_two_bytes'",
    "[[tables]]\nname = 'public.users'\nversions_table = 'users_{tenant}'",
    "[[tables]]\nname = 'public.users'\nversions_table = 'checkpoints'",
    "[[tables]]\nname = 'public.users'\nversions_table = 7",
];

const METHODS: &[&str] = &[
    "[[tables]]\nname = 'public.users'\nprotect = ['email']",
    "[[tables]]\nname = 'public.users'\nprotect = { email = 'hsah' }",
    "[[tables]]\nname = 'public.users'\nprotect = { email = 'shred' }",
    "[[tables]]\nname = 'public.users'\nprotect = { email = true }",
    "[[tables]]\nname = 'public.users'\nprotect = { email = [] }",
    "[[tables]]\nname = 'public.users'\nprotect = { email = ['partial', 'full'] }",
    "[[tables]]\nname = 'public.users'\nprotect = { email = ['drop', 'partial'] }",
    "[[tables]]\nname = 'public.users'\nprotect = { email = ['partial', 'partial'] }",
    "[[tables]]\nname = 'public.users'\nprotect = { email = ['partial', 'hash'] }",
    "[[tables]]\nname = 'public.users'\nprotect = { email = 'hash' }",
    "[[tables]]\nname = 'public.users'\nprotect = { email = { domain = 'mail' } }",
    "[[tables]]\nname = 'public.users'\nprotect = { email = { method = 'partial', patern = 'x' } }",
    "[[tables]]\nname = 'public.users'\nprotect = { email = { method = 'partial', domain = 'mail' } }",
    "[[tables]]\nname = 'public.users'\nprotect = { email = { method = 'full', pattern = '{2}' } }",
    "[[tables]]\nname = 'public.users'\nprotect = { email = { method = 'full', key = 'medical' } }",
    "[[tables]]\nname = 'public.users'\nprotect = { email = { method = 'partial', algorithm = 'sha256' } }",
    "[[tables]]\nname = 'public.users'\nprotect = { email = { method = 'hash', algorithm = 'md5' } }",
    "[[tables]]\nname = 'public.users'\nprotect = { email = { method = 'hash', algorithm = 'sha256', domain = 'mail' } }",
    "[protection]\nhash_key = { env = 'K' }\n[[tables]]\nname = 'public.users'\nprotect = { email = { method = 'hash', domain = '' } }",
    "[[tables]]\nname = 'public.users'\nprotect = { code = { method = 'partial', pattern = '' } }",
    "[[tables]]\nname = 'public.users'\nprotect = { code = { method = 'partial', pattern = 'ab{2' } }",
    "[[tables]]\nname = 'public.users'\nprotect = { code = { method = 'partial', pattern = 'ab{x}' } }",
    "[[tables]]\nname = 'public.users'\nprotect = { code = { method = 'partial', pattern = '{0}' } }",
    "[[tables]]\nname = 'public.users'\nprotect = { code = { method = 'partial', pattern = '{-2}{2}' } }",
];

const RULES: &[&str] = &[
    "[protection]\ndefault = false",
    "[protection]\nhash_key = 'geheim'",
    "[protection]\nhash_key = { env = 'K', file = '/k' }",
    "[protection]\nhash_key_id = 'Key 1'",
    "[protection]\ndefaults = 'no'",
    "[protection]\ncontext = { ip = 'mask' }",
    "[protection]\ncontext = { ip = 'hash' }",
    "[[protection.rules]]\nmethod = 'full'",
    "[[protection.rules]]\ncolumn = '*_token'",
    "[[protection.rules]]\ncolumn = ''\nmethod = 'full'",
    "[[protection.rules]]\ntype = ''\nmethod = 'full'",
    "[[protection.rules]]\ncontent = 'cards'\nmethod = 'partial'",
    "[[protection.rules]]\ncontent = 'email'\nmethod = 'drop'",
    "[[protection.rules]]\ncolumn = 'x'\ntyp = 'inet'\nmethod = 'full'",
];

const OTHERS: &[&str] = &[
    "[http]\nlisten = 'localhost'",
    "[pipeline]\nmemory_limit = '10 MiB'",
    "[pipeline]\nmemory_limit = 'much'",
    "[log]\nformat = 'xml'",
    "[sinks.Cold]\ntype = 'hot'\nurl = 'postgres://localhost/audit'",
    "[sinks.warm]\ntype = 'hot'\nurl = 'postgres://h:x/d'",
    "[sinks.warm]\ntype = 'hot'\nurl = 'postgres://localhost/audit'\nbatch_bytes = '1 B'",
    "[sinks.warm]\ntype = 'hot'\nurl = 'postgres://localhost/audit'\nbatch_rows = 0",
    "[sinks.queue]\ntype = 'sqs'",
    "[sinks.cold]\ntype = 'lake'\nurl = 's3://acme-{tenant}/audit'",
    "[sinks.cold]\ntype = 'lake'\nurl = 's3://acme/audit'\nhome = 's3://acme/home'",
    "[sinks.cold]\ntype = 'lake'\nurl = 's3://acme-{tenant}/audit'\nhome = 's3://acme/{tenant}'",
    "[sinks.cold]\ntype = 'lake'\nurl = 's3://acme/{tenant}'\nhome = '/var/lib/audit'",
];

#[test]
fn mistakes_about_tables() {
    check(
        TABLES,
        expect![[r#"
            [[tables]] ⏎ only = ['id']
              line 7, tables[0].name: missing
                hint: `schema.table`, with `*` for any run of characters and `?` for one.
            [[tables]] ⏎ name = 'public.users' ⏎ colums = ['id']
              line 9, tables[0].colums: unknown key
                hint: known here: `name`, `former_names`, `capture`, `item_type`, `only`, `ignore`, `where`, `events`, `key`, `soft_delete`, `ignore_alone`, `include`, `protect`, `allow`, `strict`, `json`, `tenant`, `subject`, `bind`, `versions_table`, `hot`, `actor_column`, `reason_column`, `require_actor`, `require_reason`, `baseline`, `sinks`, `renames`, `undo`
            [[tables]] ⏎ name = 'public.users' ⏎ only = ['id'] ⏎ ignore = ['x']
              line 9, tables[0].only: given together with `ignore`
                hint: keep one of the two
            [[tables]] ⏎ name = 'public.users' ⏎ only = 'id'
              line 9, tables[0].only: expected a list, found a string
            [[tables]] ⏎ name = 'public.users' ⏎ only = []
              line 9, tables[0].only: names no column
                hint: name some columns, or say `capture = false` to leave tables out
            [[tables]] ⏎ name = 'public.users' ⏎ ignore = [1]
              line 9, tables[0].ignore[0]: expected a string, found an integer
            [[tables]] ⏎ name = 'public.users' ⏎ sinks = ['cold']
              line 9, tables[0].sinks: there is no sink "cold"
                hint: the sinks are hot
            [[tables]] ⏎ name = 'public.users' ⏎ sinks = []
              line 9, tables[0].sinks: names no sink
                hint: say `capture = false` to leave tables out
            [[tables]] ⏎ name = 'public.users' ⏎ strict = 'yes'
              line 9, tables[0].strict: expected true or false, found a string
            [[tables]] ⏎ name = 'public.users' ⏎ baseline = 1
              line 9, tables[0].baseline: expected true or false, found an integer
            [[tables]] ⏎ name = 'public.users' ⏎ protect = { code = 'full' } ⏎ allow = ['code']
              line 10, tables[0].allow: column code is also in `protect`
                hint: take it out of one of the two
            [[tables]] ⏎ name = 'public.users' ⏎ subject = 'customer_id'
              line 9, tables[0].subject: a data subject's key needs a class of keys
                hint: add [protection.keys.default] with a master key, or take the key out
            [[tables]] ⏎ name = 'public.users' ⏎ subject = ['customer_id']
              line 9, tables[0].subject: expected a string, found a list
            [[tables]] ⏎ name = 'public.users' ⏎ bind = ['provider_id']
              line 9, tables[0].bind: there are no ciphertexts to bind: they need a class of keys
                hint: add [protection.keys.default] with a master key, or take the key out
            [protection.keys.default] ⏎ master = { type = 'local', file = '/k' } ⏎ [[tables]] ⏎ name = 'public.users' ⏎ bind = ['provider_*']
              line 11, tables[0].bind: provider_* is a pattern
                hint: name columns as they are, in an order of your own
            [protection.keys.default] ⏎ master = { type = 'local', file = '/k' } ⏎ [[tables]] ⏎ name = 'public.users' ⏎ protect = { code = 'full' } ⏎ bind = ['code']
              line 12, tables[0].bind: column code is also in `protect`
                hint: take it out of one of the two: who opens a ciphertext must see what it is bound to
            [[tables]] ⏎ name = 7
              line 8, tables[0].name: expected a string, found an integer
            [[tables]] ⏎ name = 'public.users' ⏎ versions_table = ''
              line 9, tables[0].versions_table: the name is empty
                hint: give one such as "orders_versions", or take the key out
            [[tables]] ⏎ name = 'public.users' ⏎ versions_table = 'audit.users'
              line 9, tables[0].versions_table: the name has a schema
                hint: leave it out, for the table lies in schema cdc_audit
            [[tables]] ⏎ name = 'public.users' ⏎ versions_table = 'Users'
              line 9, tables[0].versions_table: the name cannot hold character 1
                hint: take a to z, 0 to 9 and _, beside {schema}, {table} and {tenant}
            [[tables]] ⏎ name = 'public.users' ⏎ versions_table = 'users_{table'
              line 9, tables[0].versions_table: the bracket at character 7 has no other
                hint: write {schema}, {table} or {tenant}
            [[tables]] ⏎ name = 'public.users' ⏎ versions_table = 'users_{tennant}'
              line 9, tables[0].versions_table: nothing is known as {tennant}
                hint: write {schema}, {table} or {tenant}
            [[tables]] ⏎ name = 'public.users' ⏎ versions_table = 'users_with_a_name_that_takes_more_than_fifty_two_bytes'
              line 9, tables[0].versions_table: the name is longer than 52 bytes
                hint: its partitions have names that begin with it, and 63 is all there is
            [[tables]] ⏎ name = 'public.users' ⏎ versions_table = 'users_{tenant}'
              line 9, tables[0].versions_table: nothing says who the tenant is
                hint: name the column in `tenant`, beside it
            [[tables]] ⏎ name = 'public.users' ⏎ versions_table = 'checkpoints'
              line 9, tables[0].versions_table: the name is not free
                hint: choose another: this one is of cdc-audit, or may once be a partition's or a view's
            [[tables]] ⏎ name = 'public.users' ⏎ versions_table = 7
              line 9, tables[0].versions_table: expected a string, found an integer
        "#]],
    );
}

#[test]
fn a_versions_table_needs_a_hot_sink() {
    let text = "[source]\nname = 'shop'\nurl = 'postgres://localhost/shop'\n[sinks.cold]\ntype = 'lake'\nurl = '/lake'\n\
         [[tables]]\nname = '*'\nversions_table = 'mine'\n";
    let expected = "  line 9, tables[0].versions_table: there is no hot sink\n    hint: add one with type = \"hot\", or take the key out\n";
    assert_eq!(told(text), expected);
}

#[test]
fn mistakes_about_methods() {
    check(
        METHODS,
        expect![[r#"
            [[tables]] ⏎ name = 'public.users' ⏎ protect = ['email']
              line 9, tables[0].protect: expected a table, found a list
            [[tables]] ⏎ name = 'public.users' ⏎ protect = { email = 'hsah' }
              line 9, tables[0].protect.email: unknown value
                hint: did you mean `hash`?
            [[tables]] ⏎ name = 'public.users' ⏎ protect = { email = 'shred' }
              line 9, tables[0].protect.email: unknown value
                hint: known here: `full`, `partial`, `hash`, `token`, `encrypt`, `drop`
            [[tables]] ⏎ name = 'public.users' ⏎ protect = { email = true }
              line 9, tables[0].protect.email: expected one of `full`, `partial`, `hash`, `token`, `encrypt`, `drop` or a table or a list, found true or false
            [[tables]] ⏎ name = 'public.users' ⏎ protect = { email = [] }
              line 9, tables[0].protect.email: names no method
                hint: give one, or take the key out
            [[tables]] ⏎ name = 'public.users' ⏎ protect = { email = ['partial', 'full'] }
              line 9, tables[0].protect.email[1]: `full` cannot stand beside another method
                hint: keep it alone: it hides even whether there is a value, which the other would show
            [[tables]] ⏎ name = 'public.users' ⏎ protect = { email = ['drop', 'partial'] }
              line 9, tables[0].protect.email[0]: `drop` cannot stand beside another method
                hint: keep it alone: it leaves no column that the other could stand beside
            [[tables]] ⏎ name = 'public.users' ⏎ protect = { email = ['partial', 'partial'] }
              line 9, tables[0].protect.email[1]: `partial` is named twice
                hint: each method has one companion column
            [[tables]] ⏎ name = 'public.users' ⏎ protect = { email = ['partial', 'hash'] }
              line 9, tables[0].protect.email[1]: the method `hash` needs a key
                hint: set protection.hash_key to a file or variable that holds one
            [[tables]] ⏎ name = 'public.users' ⏎ protect = { email = 'hash' }
              line 9, tables[0].protect.email: the method `hash` needs a key
                hint: set protection.hash_key to a file or variable that holds one
            [[tables]] ⏎ name = 'public.users' ⏎ protect = { email = { domain = 'mail' } }
              line 9, tables[0].protect.email.method: missing
                hint: `full`, `partial`, `hash`, `token`, `encrypt` or `drop`.
            [[tables]] ⏎ name = 'public.users' ⏎ protect = { email = { method = 'partial', patern = 'x' } }
              line 9, tables[0].protect.email.patern: unknown key
                hint: did you mean `pattern`?
            [[tables]] ⏎ name = 'public.users' ⏎ protect = { email = { method = 'partial', domain = 'mail' } }
              line 9, tables[0].protect.email.domain: the method `partial` has no domain
                hint: only `hash` and `token` can be told one
            [[tables]] ⏎ name = 'public.users' ⏎ protect = { email = { method = 'full', pattern = '{2}' } }
              line 9, tables[0].protect.email.pattern: the method `full` has no pattern
                hint: only `partial` can be told one
            [[tables]] ⏎ name = 'public.users' ⏎ protect = { email = { method = 'full', key = 'medical' } }
              line 9, tables[0].protect.email.key: the method `full` has no key
                hint: only `encrypt` and `token` can be told one
            [[tables]] ⏎ name = 'public.users' ⏎ protect = { email = { method = 'partial', algorithm = 'sha256' } }
              line 9, tables[0].protect.email.algorithm: the method `partial` has no algorithm
                hint: only `hash` can be told one
            [[tables]] ⏎ name = 'public.users' ⏎ protect = { email = { method = 'hash', algorithm = 'md5' } }
              line 9, tables[0].protect.email.algorithm: unknown value
                hint: known here: `hmac-sha256`, `sha256`
            [[tables]] ⏎ name = 'public.users' ⏎ protect = { email = { method = 'hash', algorithm = 'sha256', domain = 'mail' } }
              line 9, tables[0].protect.email.domain: a bare SHA-256 knows no domain
                hint: take it out: equal values are equal everywhere
            [protection] ⏎ hash_key = { env = 'K' } ⏎ [[tables]] ⏎ name = 'public.users' ⏎ protect = { email = { method = 'hash', domain = '' } }
              line 11, tables[0].protect.email.domain: is empty
                hint: give a name, or take the key out
            [[tables]] ⏎ name = 'public.users' ⏎ protect = { code = { method = 'partial', pattern = '' } }
              line 9, tables[0].protect.code.pattern: the pattern is empty
                hint: give one such as "{2}***{-4}"
            [[tables]] ⏎ name = 'public.users' ⏎ protect = { code = { method = 'partial', pattern = 'ab{2' } }
              line 9, tables[0].protect.code.pattern: the bracket at character 3 has no other
                hint: write "{{" or "}}" for a bracket itself
            [[tables]] ⏎ name = 'public.users' ⏎ protect = { code = { method = 'partial', pattern = 'ab{x}' } }
              line 9, tables[0].protect.code.pattern: the brackets at character 3 hold no number
                hint: say how many characters are shown, as in {2} or {-4}
            [[tables]] ⏎ name = 'public.users' ⏎ protect = { code = { method = 'partial', pattern = '{0}' } }
              line 9, tables[0].protect.code.pattern: the number at character 1 is out of range
                hint: from 1 to 64 characters may be shown
            [[tables]] ⏎ name = 'public.users' ⏎ protect = { code = { method = 'partial', pattern = '{-2}{2}' } }
              line 9, tables[0].protect.code.pattern: the brackets at character 5 are too many, or in the wrong order
                hint: at most one {n}, and behind it one {-n}
        "#]],
    );
}

#[test]
fn mistakes_about_general_rules() {
    check(
        RULES,
        expect![[r#"
        [protection] ⏎ default = false
          line 8, protection.default: unknown key
            hint: did you mean `defaults`?
        [protection] ⏎ hash_key = 'geheim'
          line 8, protection.hash_key: expected a table with one of `env`, `file`, found a string
        [protection] ⏎ hash_key = { env = 'K', file = '/k' }
          line 8, protection.hash_key: expected exactly one of `env`, `file`
        [protection] ⏎ hash_key_id = 'Key 1'
          line 8, protection.hash_key_id: may hold a-z, 0-9, - and _
            hint: choose another id
        [protection] ⏎ defaults = 'no'
          line 8, protection.defaults: expected true or false, found a string
        [protection] ⏎ context = { ip = 'mask' }
          line 8, protection.context.ip: unknown value
            hint: known here: `full`, `partial`, `hash`, `token`, `encrypt`, `drop`
        [protection] ⏎ context = { ip = 'hash' }
          line 8, protection.context.ip: the method `hash` needs a key
            hint: set protection.hash_key to a file or variable that holds one
        [[protection.rules]] ⏎ method = 'full'
          line 7, protection.rules[0]: names neither columns nor content
            hint: give `column`, `type` or `content`
        [[protection.rules]] ⏎ column = '*_token'
          line 7, protection.rules[0].method: missing
            hint: What happens to the column, or to the content, as in `protect` of `[[tables]]`.
        [[protection.rules]] ⏎ column = '' ⏎ method = 'full'
          line 8, protection.rules[0].column: is empty
            hint: name columns, with `*` for any run of characters
        [[protection.rules]] ⏎ type = '' ⏎ method = 'full'
          line 8, protection.rules[0].type: is empty
            hint: name columns, with `*` for any run of characters
        [[protection.rules]] ⏎ content = 'cards' ⏎ method = 'partial'
          line 8, protection.rules[0].content: unknown value
            hint: did you mean `card`?
        [[protection.rules]] ⏎ content = 'email' ⏎ method = 'drop'
          line 9, protection.rules[0].method: content inside of a text is replaced by one method
            hint: take `full`, `partial` or `hash`, alone
        [[protection.rules]] ⏎ column = 'x' ⏎ typ = 'inet' ⏎ method = 'full'
          line 9, protection.rules[0].typ: unknown key
            hint: did you mean `type`?
    "#]],
    );
}

#[test]
fn other_mistakes() {
    check(
        OTHERS,
        expect![[r#"
            [http] ⏎ listen = 'localhost'
              line 8, http.listen: not an address with a port
                hint: give one like "127.0.0.1:9187"
            [pipeline] ⏎ memory_limit = '10 MiB'
              line 8, pipeline.memory_limit: too small
                hint: give at least "80 MiB"
            [pipeline] ⏎ memory_limit = 'much'
              line 8, pipeline.memory_limit: not a size
                hint: write a whole number and B, kB, MB, GB, TB, KiB, MiB, GiB or TiB, as in "16 MiB"
            [log] ⏎ format = 'xml'
              line 8, log.format: unknown value
                hint: known here: `text`, `json`
            [sinks.Cold] ⏎ type = 'hot' ⏎ url = 'postgres://localhost/audit'
              line 7, sinks.Cold: a sink's name may hold a-z, 0-9, - and _
                hint: choose another name
            [sinks.warm] ⏎ type = 'hot' ⏎ url = 'postgres://h:x/d'
              line 9, sinks.warm.url: the connection string cannot be read: a character in it ends a part too early
                hint: write user and password percent-encoded: @ as %40, / as %2F, : as %3A, # as %23, ? as %3F, % as %25; or keep the password out of it, in password_file
            [sinks.warm] ⏎ type = 'hot' ⏎ url = 'postgres://localhost/audit' ⏎ batch_bytes = '1 B'
              line 10, sinks.warm.batch_bytes: too small
                hint: give at least "64 KiB"
            [sinks.warm] ⏎ type = 'hot' ⏎ url = 'postgres://localhost/audit' ⏎ batch_rows = 0
              line 10, sinks.warm.batch_rows: out of range, expected a number from 1
            [sinks.queue] ⏎ type = 'sqs'
              line 8, sinks.queue.type: unknown value
                hint: known here: `hot`, `lake`, `kafka`, `webhook`
            [sinks.cold] ⏎ type = 'lake' ⏎ url = 's3://acme-{tenant}/audit'
              line 7, sinks.cold.home: missing, for `url` names tenants
                hint: give a place for what belongs to no tenant: home = "s3://acme-audit/shop"
            [sinks.cold] ⏎ type = 'lake' ⏎ url = 's3://acme/audit' ⏎ home = 's3://acme/home'
              line 10, sinks.cold.home: given where `url` names no tenants
                hint: leave it out, or name tenants: url = "s3://tenant-{tenant}-audit/shop"
            [sinks.cold] ⏎ type = 'lake' ⏎ url = 's3://acme-{tenant}/audit' ⏎ home = 's3://acme/{tenant}'
              line 10, sinks.cold.home: names tenants, but is what belongs to none
                hint: give one place, beside the tenants': "s3://acme-audit/shop"
            [sinks.cold] ⏎ type = 'lake' ⏎ url = 's3://acme/{tenant}' ⏎ home = '/var/lib/audit'
              line 10, sinks.cold.home: another kind of store than `url`
                hint: give both in one cloud, or both on disk: one section `store` holds for all
        "#]],
    );
}
