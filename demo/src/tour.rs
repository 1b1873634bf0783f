//! What is there in the end: the trail of one order, the files of the lake, and questions that another engine answers
//! from them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use audit_testkit::install::{python, run};

use crate::{Site, chapter, shop};

/// DuckDB reads the files as any analyst's engine would: it knows nothing of `cdc-audit`.
const ASK: &str = r#"
import sys, duckdb

versions = f"read_parquet('{sys.argv[1]}/*/data/**/*.parquet', union_by_name = true)"
answer = duckdb.sql(sys.argv[2].replace("versions", versions))
rows = [[str(name) for name in answer.columns]] + [["" if cell is None else str(cell) for cell in row] for row in answer.fetchall()]
widths = [max(map(len, column)) for column in zip(*rows)]
rows.insert(1, ["-" * width for width in widths])
for row in rows:
    print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |")
"#;

const BULK: &str = "SELECT cdc_actor_id AS who, cdc_reason AS why, count(*) AS orders,
       count(DISTINCT json_extract(cdc_changes, '$.status[0]')) AS different_before
FROM versions WHERE cdc_table_name = 'public.orders' AND cdc_event = 'updated'
GROUP BY who, why, cdc_xid ORDER BY orders DESC LIMIT 3";

const SECRETS: &str = "SELECT cdc_event AS event, id, name, email, password_digest
FROM versions WHERE cdc_table_name = 'public.customers' ORDER BY id";

pub fn show(site: &Site) -> Result<()> {
    chapter("The trail of Ann's order, newest first: who changed what, and why.");
    site.show(&["history", "orders", shop::ORDER])?;

    chapter("The same versions in the lake: plain Parquet files by date, one Delta table for each table.");
    for (folder, (files, bytes)) in parquet_files(&site.lake())? {
        println!("  {folder:<60} {files:>2} files {bytes:>7} bytes");
    }

    chapter("Dave forgot a WHERE. Any engine finds it; here DuckDB, by listing those files:");
    ask(site, BULK)?;

    let dave = dave(site)?;
    chapter("What else did he do in that transaction? And who had set what in Ann's order?");
    site.show(&["search", "orders", "status:->cancelled", "--group-by", "actor,day"])?;
    site.show(&["tx", &dave, "--limit", "5"])?;
    site.show(&["blame", "orders", shop::ORDER])?;

    chapter("How it was before:");
    let before = format!("before {dave}");
    site.show(&["show", "orders", shop::ORDER, "--as-of", &before])?;
    site.show(&["diff", "orders", "--since", &before, "--stat"])?;

    chapter(
        "Erin undoes it, by her own login. It is compared with the live rows, and was tried and rolled back without `--yes`:",
    );
    site.server.execute("shop", shop::ERIN);
    let login = site.source.replacen("postgres@", "erin@", 1);
    let mut daemon = site.start()?;
    let why = ["--actor", "staff:erin", "--reason", "ticket 4711"];
    site.show_ends(&[&["undo", &dave, "--as", &login, "--yes"][..], &why].concat(), 3)?;
    daemon.stop()?;
    site.show(&["history", "orders", shop::ORDER, "--limit", "2"])?;

    chapter("And what nobody needs to know never left memory:");
    ask(site, SECRETS)
}

/// The transaction in which Dave cancelled every order, as commands name it.
fn dave(site: &Site) -> Result<String> {
    let found = site.answer(&["search", "orders", "status:->cancelled", "--limit", "1", "--json"])?;
    let version: serde_json::Value = serde_json::from_str(found.lines().next().context("nobody cancelled orders")?)?;
    Ok(format!("xid:{}", version["xid"]))
}

fn ask(site: &Site, question: &str) -> Result<()> {
    println!("{question}\n");
    println!("{}", run(Command::new(python()).args(["-c", ASK]).arg(site.lake()).arg(question))?);
    Ok(())
}

/// By folder: how many, and their size.
fn parquet_files(lake: &Path) -> Result<BTreeMap<String, (usize, u64)>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![PathBuf::from(lake)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "parquet") {
                let shown = folder.strip_prefix(lake).unwrap_or(&folder).display().to_string();
                let (files, bytes): &mut (usize, u64) = found.entry(shown).or_default();
                *files += 1;
                *bytes += fs::metadata(&path)?.len();
            }
        }
    }
    Ok(found)
}
