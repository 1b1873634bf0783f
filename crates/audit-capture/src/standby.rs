//! Whether the server treats the daemon as a synchronous standby ([`is_synchronous`]).
//!
//! PostgreSQL makes a walsender a synchronous standby by its application name alone, whatever it sends; `*` matches
//! every name. Then COMMITs of the source wait until every sink has stored the transaction. They wait for ever if a
//! sink's own COMMIT in the same cluster waits too. A walsender cannot ask to be left out.

/// What a person can do about it.
pub const FIX: &str = "name the standbys in synchronous_standby_names, without `*` and without the daemon's application_name, \
                       then SELECT pg_reload_conf()";

/// Whether `synchronous_standby_names` lists a walsender of this application name as a synchronous one.
pub fn is_synchronous(synchronous_standby_names: &str, application_name: &str) -> bool {
    // The setting's grammar: `a, b`, `2 (a, b)`, `FIRST 2 (a, b)`, `ANY 2 (a, b)`; names may be in double quotes.
    let list = synchronous_standby_names;
    let quoted_or_plain = |name: &str| match name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
        Some(name) => name.replace("\"\"", "\""),
        None => name.to_owned(),
    };
    let list = match list.find(['(', '"']) {
        Some(at) if list[at..].starts_with('(') => list[at + 1..].trim_end().trim_end_matches(')'),
        _ => list,
    };
    let mut is_inside = false;
    let names = list.split(|c: char| {
        is_inside ^= c == '"';
        c == ',' && !is_inside
    });
    let mut names = names.map(|name| quoted_or_plain(name.trim())).filter(|name| !name.is_empty());
    names.any(|name| name == "*" || name.eq_ignore_ascii_case(application_name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_the_server_compares_them() {
        for names in [
            "*",
            "FIRST 1 (*)",
            "any 2 ( s1 , * )",
            "2 (s1, cdc-audit)",
            "s1,Cdc-Audit",
            "\"cdc-audit\"",
            "FIRST 1 (\"a(,b\", \"CDC-audit\")",
            " s1 , \"*\" ",
        ] {
            assert!(is_synchronous(names, "cdc-audit"), "{names}");
        }
        for names in
            ["", " ", "s1", "FIRST 1 (s1, s2)", "cdc-audit2", "\"cdc\"\"-audit\"", "\"a, cdc-audit\"", "ANY 1 (cdc)"]
        {
            assert!(!is_synchronous(names, "cdc-audit"), "{names}");
        }
    }
}
