//! What is there in the end: the trail of one order, the files of the lake, and questions that another engine answers
//! from them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use audit_testkit::install::python;

use super::{Site, say, shop};
use crate::step::run;

/// DuckDB reads the files as any analyst's engine would: it knows nothing of `cdc-audit`.
const QUESTIONS: &str = r#"
import sys, duckdb
versions = f"read_parquet('{sys.argv[1]}/*/data/**/*.parquet', union_by_name = true)"
def ask(question, sql):
    print(f"\n{question}")
    duckdb.sql(sql.format(versions=versions)).show()
ask("What happened, by table:",
    "SELECT cdc_table_name AS \"table\", cdc_event AS event, count(*) AS versions FROM {versions} GROUP BY ALL ORDER BY ALL")
ask("Who changed the most orders in one transaction:",
    "SELECT cdc_actor_id AS who, cdc_reason AS why, count(*) AS orders FROM {versions} "
    "WHERE cdc_table_name = 'public.orders' AND cdc_event = 'updated' GROUP BY who, why, cdc_xid ORDER BY orders DESC LIMIT 3")
ask("What the lake knows of customers:",
    "SELECT cdc_event AS event, id, name, password_digest FROM {versions} WHERE cdc_table_name = 'public.customers' ORDER BY id")
"#;

pub fn show(site: &Site) -> Result<()> {
    say("The trail of Ann's order, newest first, from the hot table:");
    site.cdc_audit(&["history", "public.orders", &shop::ORDER.to_string()])?;

    say("The lake: a Delta table for each table, plain Parquet files by date.");
    let mut files = Vec::new();
    parquet_files(&site.lake(), &mut files)?;
    for file in &files {
        let size = fs::metadata(file)?.len();
        println!("   {size:>7} bytes  {}", file.strip_prefix(site.lake()).unwrap_or(file).display());
    }

    say("The same files, asked through DuckDB:");
    let questions = site.folder.path().join("questions.py");
    fs::write(&questions, QUESTIONS)?;
    run(Command::new(python()).arg(questions).arg(site.lake()))?;
    say("The demo cleans up after itself. Nothing is left.");
    Ok(())
}

fn parquet_files(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            parquet_files(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "parquet") {
            files.push(path);
        }
    }
    files.sort();
    Ok(())
}
