//! Rules by which a bucket moves a lake's data to colder storage classes: [`lifecycle`].
//!
//! A rule may reach the folders `data/` of the tables and nothing else: the Delta log, `_cdc_audit` and `fresh/` are read
//! all the time, and small. No rule deletes anything that the log names. What rules do delete is what nobody can reach:
//! earlier versions of objects in a bucket that keeps versions, their delete markers, and unfinished uploads.
//!
//! The forms are those that `aws s3api put-bucket-lifecycle-configuration`, `gcloud storage buckets update
//! --lifecycle-file` and `az storage account management-policy create` take.

use serde_json::{Value, json};

use crate::error::LakeError;
use crate::layout::{DATA, table_folder};
use crate::place::{Bucket, Cloud, Place};

/// The reason why there are no rules for a lake.
#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    #[error("{url} is no bucket, and only buckets have storage classes")]
    NoBucket { url: String },
    #[error("the lake has {tables} tables, and a bucket can have rules for {most} at most")]
    TooMany { tables: usize, most: usize },
    #[error(transparent)]
    Place(#[from] LakeError),
}

/// After how many days data moves on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ages {
    /// To a class for what is read rarely.
    pub cool: u32,
    /// To a class for what is hardly read, but answers at once.
    pub cold: u32,
    /// To a class that must be restored before it can be read.
    pub offline: Option<u32>,
}

impl Default for Ages {
    fn default() -> Ages {
        Ages { cool: 90, cold: 365, offline: None }
    }
}

/// Objects below this size cost more in a colder class than in the standard one.
const SMALL: u64 = 128 << 10;

/// Days after which unreachable versions of objects are deleted.
const NONCURRENT_DAYS: u32 = 7;

/// The most prefixes that a bucket's rules can name; one more rule is for the whole lake.
fn prefixes_max(cloud: Cloud) -> usize {
    match cloud {
        Cloud::S3 => 999,
        // A condition for each class names all of them.
        Cloud::Gcs => 333,
        Cloud::Azure => 990,
    }
}

/// The most prefixes in one rule of Azure.
const AZURE_PREFIXES: usize = 10;

/// The rules for a lake at `url` with these tables.
///
/// # Errors
/// Fails for a lake on disk, and if the tables are more than a bucket can have rules for.
pub fn lifecycle(url: &str, tables: &[String], ages: Ages) -> Result<Value, LifecycleError> {
    let Place::Bucket(bucket) = Place::parse(url)? else {
        return Err(LifecycleError::NoBucket { url: url.to_owned() });
    };
    let most = prefixes_max(bucket.cloud);
    if tables.len() > most {
        return Err(LifecycleError::TooMany { tables: tables.len(), most });
    }
    let lake = match bucket.prefix.as_ref() {
        "" => String::new(),
        prefix => format!("{prefix}/"),
    };
    let prefixes: Vec<String> = tables.iter().map(|table| format!("{lake}{}/{DATA}/", table_folder(table))).collect();
    Ok(match bucket.cloud {
        Cloud::S3 => s3(&lake, &prefixes, ages),
        Cloud::Gcs => gcs(&lake, &prefixes, ages),
        Cloud::Azure => azure(&bucket, &lake, &prefixes, ages),
    })
}

fn s3(lake: &str, prefixes: &[String], ages: Ages) -> Value {
    let to = |days: u32, class: &str| json!({"Days": days, "StorageClass": class});
    let mut transitions = vec![to(ages.cool, "STANDARD_IA"), to(ages.cold, "GLACIER_IR")];
    transitions.extend(ages.offline.map(|days| to(days, "DEEP_ARCHIVE")));
    let rule = |(number, prefix): (usize, &String)| {
        json!({
            "ID": format!("cdc-audit data {}", number + 1),
            "Status": "Enabled",
            "Filter": {"And": {"Prefix": prefix, "ObjectSizeGreaterThan": SMALL}},
            "Transitions": transitions,
        })
    };
    let mut rules: Vec<Value> = prefixes.iter().enumerate().map(rule).collect();
    rules.push(json!({
        "ID": "cdc-audit leftovers",
        "Status": "Enabled",
        "Filter": {"Prefix": lake},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
        "NoncurrentVersionExpiration": {"NoncurrentDays": NONCURRENT_DAYS},
        "Expiration": {"ExpiredObjectDeleteMarker": true},
    }));
    json!({"Rules": rules})
}

fn gcs(lake: &str, prefixes: &[String], ages: Ages) -> Value {
    let to = |days: u32, class: &str| {
        json!({
            "action": {"type": "SetStorageClass", "storageClass": class},
            "condition": {"age": days, "matchesPrefix": prefixes},
        })
    };
    let whole = |action: &str, mut condition: Value| {
        if !lake.is_empty() {
            condition["matchesPrefix"] = json!([lake]);
        }
        json!({"action": {"type": action}, "condition": condition})
    };
    let mut rules = Vec::new();
    if !prefixes.is_empty() {
        rules.extend([to(ages.cool, "NEARLINE"), to(ages.cold, "COLDLINE")]);
        // The coldest class of this cloud answers at once, too.
        rules.extend(ages.offline.map(|days| to(days, "ARCHIVE")));
    }
    rules.push(whole("AbortIncompleteMultipartUpload", json!({"age": 1})));
    rules.push(whole("Delete", json!({"daysSinceNoncurrentTime": NONCURRENT_DAYS})));
    json!({"lifecycle": {"rule": rules}})
}

fn azure(bucket: &Bucket, lake: &str, prefixes: &[String], ages: Ages) -> Value {
    let container = bucket.container();
    let after = |days: u32| json!({"daysAfterModificationGreaterThan": days});
    let mut tiers = json!({"tierToCool": after(ages.cool), "tierToCold": after(ages.cold)});
    if let Some(days) = ages.offline {
        tiers["tierToArchive"] = after(days);
    }
    let rule = |name: String, prefixes: Vec<String>, actions: Value| {
        json!({
            "enabled": true,
            "name": name,
            "type": "Lifecycle",
            "definition": {"filters": {"blobTypes": ["blockBlob"], "prefixMatch": prefixes}, "actions": actions},
        })
    };
    let within = |prefix: &String| format!("{container}/{prefix}");
    let data = |(number, prefixes): (usize, &[String])| {
        let prefixes = prefixes.iter().map(within).collect();
        rule(format!("cdc-audit-data-{}", number + 1), prefixes, json!({"baseBlob": tiers}))
    };
    let mut rules: Vec<Value> = prefixes.chunks(AZURE_PREFIXES).enumerate().map(data).collect();
    let leftovers = json!({"version": {"delete": {"daysAfterCreationGreaterThan": NONCURRENT_DAYS}}});
    rules.push(rule("cdc-audit-leftovers".to_owned(), vec![format!("{container}/{lake}")], leftovers));
    json!({"rules": rules})
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLES: [&str; 2] = ["public.orders", "public.\"odd table\""];

    fn rules(url: &str, ages: Ages) -> Value {
        lifecycle(url, &TABLES.map(str::to_owned), ages).unwrap()
    }

    /// Every text below a key `name`, at any depth.
    fn texts(value: &Value, name: &str) -> Vec<String> {
        match value {
            Value::Object(members) => members
                .iter()
                .flat_map(|(key, value)| match value {
                    Value::String(text) if key == name => vec![text.clone()],
                    Value::Array(list) if key == name => {
                        list.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect()
                    }
                    value => texts(value, name),
                })
                .collect(),
            Value::Array(list) => list.iter().flat_map(|value| texts(value, name)).collect(),
            _ => Vec::new(),
        }
    }

    /// ⚠ What moves is data; the log, the lake's own folder and fresh files stay where they are.
    #[test]
    fn only_data_moves() {
        let folder = table_folder(TABLES[1]);
        for (url, key, lake) in [
            ("s3://acme/shop", "Prefix", "shop/"),
            ("gs://acme/shop", "matchesPrefix", "shop/"),
            ("abfss://audit@acme.dfs.core.windows.net/shop", "prefixMatch", "audit/shop/"),
            ("az://audit/shop", "prefixMatch", "audit/shop/"),
            ("s3://acme", "Prefix", ""),
        ] {
            let rules = rules(url, Ages { offline: Some(730), ..Ages::default() });
            let moving =
                |rule: &&Value| !rule.to_string().contains("oncurrent") && !rule.to_string().contains("version");
            let list = rules.pointer("/Rules").or(rules.pointer("/lifecycle/rule")).or(rules.pointer("/rules"));
            let data: Vec<String> = list
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter(moving)
                .filter(|rule| !rule.to_string().contains("Abort"))
                .flat_map(|rule| texts(rule, key))
                .collect();
            assert!(!data.is_empty(), "{url}: {rules}");
            for prefix in data {
                let expected = [format!("{lake}public.orders/data/"), format!("{lake}{folder}/data/")];
                assert!(expected.contains(&prefix), "{url}: {prefix}");
            }
        }
    }

    #[test]
    fn nothing_goes_offline_unasked() {
        for url in ["s3://acme/shop", "gs://acme/shop", "az://audit/shop"] {
            let offline = |rules: Value| {
                let text = rules.to_string();
                text.contains("DEEP_ARCHIVE") || text.contains("tierToArchive") || text.contains("\"ARCHIVE\"")
            };
            assert!(!offline(rules(url, Ages::default())), "{url}");
            assert!(offline(rules(url, Ages { offline: Some(730), ..Ages::default() })), "{url}");
        }
    }

    #[test]
    fn what_cannot_have_rules_is_refused() {
        let many: Vec<String> = (0..1_000).map(|number| format!("public.t{number}")).collect();
        for cloud in ["s3://acme", "gs://acme", "az://audit"] {
            let refused = lifecycle(cloud, &many, Ages::default());
            assert!(matches!(refused, Err(LifecycleError::TooMany { tables: 1_000, .. })), "{cloud}");
        }
        assert!(matches!(lifecycle("/var/lib/lake", &[], Ages::default()), Err(LifecycleError::NoBucket { .. })));
        let few = lifecycle("az://audit/shop", &many[..95], Ages::default()).unwrap();
        assert_eq!(few["rules"].as_array().unwrap().len(), 11);
    }
}
