//! The statements of an undo as a file that a person runs: [`script`].

use audit_connect::PINNED;

use crate::report::Report;
use crate::sql::literal;

/// Settings that decide how values are read and printed.
const SETTINGS: [&str; 7] =
    ["DateStyle", "IntervalStyle", "TimeZone", "bytea_output", "extra_float_digits", "lc_monetary", "xmlbinary"];

/// Makes one transaction of the statements that were tried. Each of them fails unless it writes exactly the row that it
/// is about, as that row was.
pub fn script(report: &Report) -> String {
    let mut out = "\\set ON_ERROR_STOP on\nBEGIN;\nSET LOCAL lock_timeout TO '2s';\n".to_owned();
    for (name, value) in PINNED.iter().filter(|(name, _)| SETTINGS.contains(name)) {
        out.push_str(&format!("SET LOCAL {name} TO {};\n", literal(value)));
    }
    out.push_str("SET CONSTRAINTS ALL DEFERRED;\n");
    out.push_str(&format!("SELECT cdc_audit.set_context({}::jsonb);\n", literal(&report.context)));
    for statement in report.statements.iter().filter(|statement| statement.rows > 0) {
        out.push_str(&guarded(&statement.sql, &statement.row, &statement.guards));
    }
    out.push_str("COMMIT;\n");
    out
}

/// Wraps a statement so that it fails unless it writes exactly one row, and if its cascade would touch others.
fn guarded(statement: &str, row: &str, guards: &[String]) -> String {
    let others = literal(&format!("rows that were added since belong to {row}"));
    let guard = |sql: &String| {
        format!(
            "    IF (SELECT f.count FROM ({sql}) AS f) > 0 THEN\n        RAISE EXCEPTION USING MESSAGE = {others};\n    END IF;\n"
        )
    };
    let guards: String = guards.iter().map(guard).collect();
    let said = literal(&format!("{row} is not as it was when this file was written"));
    let body = format!(
        "#variable_conflict use_column\nDECLARE\n    written bigint;\nBEGIN\n{guards}    {statement};\n    GET DIAGNOSTICS written = ROW_COUNT;\n    \
         IF written <> 1 THEN\n        RAISE EXCEPTION USING MESSAGE = {said};\n    END IF;\nEND"
    );
    // The mark must not occur in what it quotes.
    let mut mark = "$undo$".to_owned();
    while body.contains(&mark) {
        mark.insert(1, '_');
    }
    format!("DO {mark}\n{body}\n{mark};\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_statement_does_not_end_its_quote() {
        assert!(guarded("DELETE FROM t WHERE a = '$undo$'", "t 1", &[]).starts_with("DO $_undo$\n"));
    }
}
