//! `cdc-audit lifecycle`.

use std::process::ExitCode;

use audit_lake::LakeConfig;
use audit_lake::lifecycle::{Ages, LifecycleError, lifecycle};

use crate::config::Config;
use crate::error::{CliError, code};
use crate::output::{argument, note, print_exactly};
use crate::sinks::lake::{named, reader};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  cdc-audit lifecycle > rules.json\n  \
    aws s3api put-bucket-lifecycle-configuration --bucket acme-audit --lifecycle-configuration file://rules.json\n\n\
    The rules reach the data of the tables that the lake has now: print them again when tables were added.")]
pub struct Args {
    /// The lake. Default: the first.
    #[arg(long, value_name = "SINK")]
    sink: Option<String>,
    /// What this tenant has, in a lake that keeps tenants apart. `-`: a line of standard input.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Days after which data moves to a class for what is read rarely.
    #[arg(long, value_name = "DAYS", default_value_t = Ages::default().cool)]
    cool: u32,
    /// Days after which data moves to a class for what is hardly read, but answers at once.
    #[arg(long, value_name = "DAYS", default_value_t = Ages::default().cold)]
    cold: u32,
    /// Days after which data moves to the coldest class, whose files must be restored before anybody can read them. Default: never.
    #[arg(long, value_name = "DAYS")]
    offline: Option<u32>,
}

pub async fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    let ages = Ages { cool: args.cool, cold: args.cold, offline: args.offline };
    check(ages)?;
    let (name, lake) = named(config, args.sink.as_deref())?;
    let tenant = args.tenant.map(argument).transpose()?;
    let reader = reader(lake, tenant.as_deref()).await?;
    let tables = reader.tables(&config.source.name).await?;
    let rules = lifecycle(&reader.url()?, &tables, ages)?;
    print_exactly(format!("{rules:#}\n"))?;
    note(format!(
        "rules for {} tables of {name}; where they are installed they replace all rules that the bucket has",
        tables.len()
    ));
    warnings(lake, ages).into_iter().for_each(note);
    Ok(ExitCode::SUCCESS)
}

fn check(ages: Ages) -> Result<(), CliError> {
    let days = [Some(ages.cool), Some(ages.cold), ages.offline];
    let days: Vec<u32> = days.into_iter().flatten().collect();
    if days.iter().any(|days| *days < 30) || !days.is_sorted_by(|one, next| *next >= one + 30) {
        return Err(CliError::new("data stays in each class for 30 days at least, which the clouds charge for anyway")
            .hint("give days that grow by 30 or more from --cool to --cold and --offline".to_owned())
            .code(code::USAGE));
    }
    Ok(())
}

fn warnings(lake: &LakeConfig, ages: Ages) -> Vec<String> {
    let mut warnings = Vec::new();
    let days = lake.compact_within.get().as_secs() / 86_400;
    if !lake.listing_readers && days >= u64::from(ages.cool) {
        warnings.push(format!(
            "compaction reads and writes data of the last {days} days (compact_within), and so of the colder class, which costs: \
             set it below {} d",
            ages.cool
        ));
    }
    if let Some(offline) = ages.offline {
        warnings.push(format!(
            "data of more than {offline} days must be restored before it can be read: until then questions about that time fail, \
             and Athena leaves such files out without a word unless the table has read_restored_glacier_objects"
        ));
    }
    warnings
}

impl From<LifecycleError> for CliError {
    fn from(error: LifecycleError) -> CliError {
        match error {
            LifecycleError::Place(error) => error.into(),
            LifecycleError::NoBucket { .. } => CliError::new(error.to_string()).code(code::USAGE),
            LifecycleError::TooMany { .. } => CliError::new(error.to_string())
                .hint("send some of the tables to another lake: a second sink, and `sinks` in [[tables]]".to_owned()),
        }
    }
}
