//! `cdc-audit keys`.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use audit_cipher::{KeyId, Kind};
use audit_keys::{Access, Generation, KeyAdmin, StoredKey, append_version, rewriting};
use serde_json::json;

use crate::config::Config;
use crate::error::{CliError, code};
use crate::output::{argument, print, print_json, table};
use crate::role::{endpoint, os_user};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cdc-audit keys list\n  cdc-audit keys rotate --class pii\n  cdc-audit keys rewrap --class pii\n  \
    cdc-audit keys export > keys.jsonl\n  cdc-audit keys destroy --class pii --subject 4711\n\nThe daemon's role may only add keys: \
    rotate, rewrap and destroy want one that owns the key store, by --as."
)]
pub struct Args {
    #[command(subcommand)]
    what: What,
    /// Connection string of a role that owns the key store. Default: the configured one.
    #[arg(long = "as", value_name = "URL", global = true)]
    role: Option<String>,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Show the keys of all classes but those of data subjects: when they were made, and what wraps them.
    List {
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Let running daemons encrypt under a new data key. What was encrypted before stays readable.
    Rotate {
        #[arg(long)]
        class: String,
    },
    /// Wrap the keys of a class anew, under the newest version of its master key, or under another one.
    Rewrap {
        #[arg(long)]
        class: String,
    },
    /// Write all wrapped keys, one JSON object a line: a backup, of use only with the master keys.
    Export,
    /// Destroy a key: what it encrypted is unreadable from then on, everywhere and for ever.
    Destroy(Destroy),
    /// Make a local keyring, or add a version to one.
    Master {
        /// The keyring file.
        file: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
struct Destroy {
    /// The key of this name.
    #[arg(long, value_name = "KEY", conflicts_with_all = ["subject", "class"], required_unless_present = "subject")]
    key: Option<String>,
    /// The data subject's class.
    #[arg(long, requires = "subject")]
    class: Option<String>,
    /// The keys of the data subject with this id, as the database prints it; blanks at its end do not count. `-`: a line of standard input,
    /// which no other user of the machine can see.
    #[arg(long, value_name = "ID", requires = "class")]
    subject: Option<String>,
    /// Give later values of that subject a new key. Without it they are stored as erased.
    #[arg(long, requires = "subject")]
    renew: bool,
    /// Why: it becomes part of the access log, beside who did it.
    #[arg(long, value_name = "TEXT")]
    purpose: Option<String>,
    /// In whose name, where that is not yours; it becomes part of the access log.
    #[arg(long, value_name = "NAME")]
    on_behalf_of: Option<String>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

pub async fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    if let What::Master { file } = &args.what {
        let name = append_version(file)?;
        print(format!("{}: version {name}", file.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let store = match &args.role {
        Some(url) => endpoint("--as", url)?,
        None => config.key_store().clone(),
    };
    let admin = KeyAdmin::new(&config.source.name, &config.protection.keys, store)?;
    match args.what {
        What::List { json } => list(&admin, json).await?,
        What::Rotate { class } => {
            let retired = admin.rotate(&class).await?;
            print(format!("{retired} data keys of class {class} are retired; daemons change within a minute"))?;
        }
        What::Rewrap { class } => {
            let done = admin.rewrap(&class).await?;
            print(format!("{} keys of class {class} are wrapped anew", done.done))?;
            if done.passed > 0 {
                let message = format!("{} keys were changed by somebody else meanwhile", done.passed);
                return Err(CliError::new(message).hint("run it again".to_owned()));
            }
        }
        What::Export => export(&admin).await?,
        What::Destroy(what) => destroy(&admin, what, &config.source.name).await?,
        What::Master { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(admin: &KeyAdmin, json: bool) -> Result<(), CliError> {
    let keys = admin.list().await?;
    if json {
        return keys.iter().try_for_each(|key| print_json(&shown(key)));
    }
    if keys.is_empty() {
        return print("There are no keys yet: the daemon makes them when it first needs one.");
    }
    let mut rows = table(&["key", "class", "for", "made", "wrapped by", "state"]);
    for key in &keys {
        let state = match (&key.destroyed_at, &key.retired_at) {
            (Some(at), _) => format!("destroyed {at}"),
            (None, Some(at)) => format!("retired {at}"),
            (None, None) => String::new(),
        };
        rows.add_row([key.key.as_str(), &key.class, key.kind.as_str(), &key.created_at, &key.master, &state]);
    }
    rows.print()
}

/// Without what is wrapped.
fn shown(key: &StoredKey) -> serde_json::Value {
    json!({
        "key": key.key.as_str(), "source": key.source, "class": key.class, "kind": key.kind.as_str(), "master": key.master,
        "created_at": key.created_at, "retired_at": key.retired_at, "destroyed_at": key.destroyed_at,
    })
}

async fn export(admin: &KeyAdmin) -> Result<(), CliError> {
    for key in admin.list().await? {
        let mut line = shown(&key);
        line["wrapped"] = json!(key.text);
        print_json(&line)?;
    }
    let mut after: Option<KeyId> = None;
    loop {
        let page = admin.subjects(after.as_ref()).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.key.clone());
        for key in &page {
            let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            print_json(&json!({
                "key": key.key.as_str(), "source": key.source, "class": key.class, "kind": "subject", "subject": hex(&key.subject.0),
                "generation": key.generation, "under": key.under.as_str(), "wrapped": key.wrapped.as_deref().map(hex),
            }))?;
        }
    }
}

async fn destroy(admin: &KeyAdmin, what: Destroy, source: &str) -> Result<(), CliError> {
    let by = Access {
        os_user: os_user()?,
        requested_by: what.on_behalf_of.clone(),
        action: "destroy".to_owned(),
        purpose: what.purpose.clone(),
    };
    match &what.key {
        Some(text) => {
            let key = KeyId::parse(text).ok_or_else(|| {
                CliError::new(format!("{text} is no key's name"))
                    .hint("see `cdc-audit keys list`".to_owned())
                    .code(code::USAGE)
            })?;
            if !what.yes {
                confirm(source)?;
            }
            if !admin.destroy(&key, &by).await? {
                return Err(CliError::new(format!("there is no key {key}, or not any more")));
            }
            print(format!("{key} is destroyed"))?;
            rewrite(admin, key.kind()).await
        }
        None => erase(admin, &what, &by, source).await,
    }
}

/// Destroys the keys of a data subject, and says what there was: an id that is not the person's must not look like success.
async fn erase(admin: &KeyAdmin, what: &Destroy, by: &Access, source: &str) -> Result<(), CliError> {
    let id = argument(what.subject.clone().unwrap_or_default())?;
    let (class, id) = (what.class.as_deref().unwrap_or_default(), id.as_str());
    let known = admin.generations(class, id).await?;
    eprintln!("{}", described(&known));
    if !what.yes {
        confirm(source)?;
    }
    let erased = admin.destroy_subject(class, id, what.renew, by).await?;
    if erased.unknown {
        let later = if what.renew { "" } else { "; what comes of that id later is stored as erased" };
        return Err(CliError::new("no key of this subject is known; a tombstone was written")
            .detail(format!("nothing was destroyed{later}"))
            .hint(
                "check the id, as the database prints it, and the class; after a mistake run it again with --renew, so that later \
                 values of that id are kept"
                    .to_owned(),
            )
            .code(code::NOT_FOUND));
    }
    let keys = if erased.destroyed == 1 { "1 key".to_owned() } else { format!("{} keys", erased.destroyed) };
    print(format!("{keys} of that data subject destroyed, {} known before", known.len()))?;
    if erased.destroyed > 0 { rewrite(admin, Kind::Subject).await } else { Ok(()) }
}

/// What is known of a data subject.
fn described(known: &[Generation]) -> String {
    let (Some(first), Some(last)) = (known.first(), known.last()) else {
        return "No key of that data subject is known: check the id and the class.".to_owned();
    };
    let left = known.iter().filter(|generation| generation.destroyed_at.is_none()).count();
    let made = if known.len() == 1 { "made" } else { "the first made" };
    let mut text = format!(
        "{} keys of that data subject are known, {left} not destroyed; {made} {}",
        known.len(),
        first.created_at
    );
    if known.len() > 1 {
        text.push_str(&format!(", the last {}", last.created_at));
    }
    text
}

/// A key that is gone from its row is still in the table's file, until the table is rewritten.
async fn rewrite(admin: &KeyAdmin, kind: Kind) -> Result<(), CliError> {
    admin.rewrite(kind).await.map_err(|error| {
        CliError::from(error)
            .detail("the key is destroyed, but the table's file may still hold its bytes")
            .hint(format!("run this as the owner of the key store: {}", rewriting(kind)))
    })
}

/// Asks for the source's name, which nobody types by accident.
fn confirm(source: &str) -> Result<(), CliError> {
    if !std::io::stdin().is_terminal() {
        return Err(CliError::new("a key is not destroyed unasked, and there is nobody to ask")
            .hint("run it on a terminal, or with --yes".to_owned())
            .code(code::USAGE));
    }
    eprint!(
        "What this key encrypted will be unreadable, everywhere and for ever. Type the source's name ({source}) to go on: "
    );
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    match std::io::stdin().read_line(&mut answer).is_ok() && answer.trim() == source {
        true => Ok(()),
        false => Err(CliError::new("nothing was destroyed: that is not the source's name")),
    }
}
