//! Names of tenants as parts of paths and of buckets' names. They are values of rows, and are written so that no two
//! tenants share a place and that no place is outside of what `url` says ([`in_path`], [`in_bucket`]).

use sha2::{Digest, Sha256};

use crate::error::LakeError;
use crate::place::Place;

/// The placeholder for a tenant in `url`.
pub const TENANT: &str = "{tenant}";
/// Longest name in a path, in bytes. A longer one is cut and ends in a hash.
const PATH_MAX: usize = 150;
/// Longest name of a bucket, on every cloud.
const BUCKET_MAX: usize = 63;
/// Length of what [`in_bucket`] writes for a name that it cannot keep.
const HASHED: usize = 34;

/// The folder's name for a tenant's name. No other tenant gets the same folder, and it leads to no other place.
pub fn folder_of(tenant: &str) -> String {
    in_path(tenant, false)
}

/// Where a tenant's store is. A name that would put the store inside home, or home inside the store, is written in
/// another way.
pub(crate) fn place_of(url: &str, home: &Place, tenant: &str) -> Result<Place, LakeError> {
    for plain in [true, false] {
        let place = Place::parse(&fill(url, tenant, plain))?;
        if !place.overlaps(home) {
            return Ok(place);
        }
    }
    Err(LakeError::Place { url: url.to_string() })
}

/// Splits a url into what precedes the authority, the authority, which names the bucket, and what follows it.
fn authority(url: &str) -> (&str, &str, &str) {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = match start {
        0 => 0,
        start => url[start..].find('/').map_or(url.len(), |at| start + at),
    };
    (&url[..start], &url[start..end], &url[end..])
}

/// How long a tenant's name may be in a bucket's name; `None` if it is not part of it.
pub(crate) fn room_in_bucket(url: &str) -> Option<usize> {
    let bucket = authority(url).1.split('@').next().unwrap_or_default();
    bucket.contains(TENANT).then(|| BUCKET_MAX.saturating_sub(bucket.replace(TENANT, "").len()))
}

/// Whether `{tenant}` is where it can be: at most once in a bucket's name, not in an account's, and with room for every
/// name.
pub(crate) fn is_sound(url: &str) -> bool {
    let (scheme, bucket, path) = authority(url);
    let (container, account) = bucket.split_once('@').unwrap_or((bucket, ""));
    !scheme.contains(TENANT)
        && !account.contains(TENANT)
        && container.matches(TENANT).count() <= 1
        && path.matches(TENANT).count() <= 1
        && room_in_bucket(url).is_none_or(|room| room >= HASHED)
}

fn fill(url: &str, tenant: &str, plain: bool) -> String {
    let (scheme, bucket, path) = authority(url);
    let room = room_in_bucket(url).unwrap_or_default();
    let bucket = bucket.replace(TENANT, &in_bucket(tenant, room, plain));
    format!("{scheme}{bucket}{}", path.replace(TENANT, &in_path(tenant, !plain)))
}

/// A tenant's name as part of a path. ASCII letters, digits, `_`, `.` and a `-` between two letters or digits are kept;
/// any other byte, and a `_` or `.` at the beginning, is written as `--` and two hex digits. So a UUID stays as it is,
/// and no name contains a slash or is `..`. With `escaped` every byte is written in this way.
fn in_path(tenant: &str, escaped: bool) -> String {
    let bytes = tenant.as_bytes();
    let is_plain = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_alphanumeric);
    let mut name = String::with_capacity(bytes.len());
    for (at, byte) in bytes.iter().enumerate() {
        let keeps = match byte {
            b'-' => at > 0 && is_plain(at - 1) && is_plain(at + 1),
            b'_' | b'.' => at > 0,
            byte => byte.is_ascii_alphanumeric(),
        };
        match keeps && !escaped {
            true => name.push(*byte as char),
            false => name.push_str(&format!("--{byte:02x}")),
        }
    }
    if name.len() > PATH_MAX {
        name.truncate(PATH_MAX - 35);
        // `x` is not a hex digit, so no other name ends like this.
        name.push_str("--x");
        name.push_str(&hex(&Sha256::digest(bytes)[..16]));
    }
    name
}

/// A tenant's name as part of a bucket's name. Lower-case letters, digits, and single `-` between them are kept if they
/// fit into `room`. Any other name, and one that begins with `x-`, becomes `x-` and a hash of it. No cloud allows much
/// more.
fn in_bucket(tenant: &str, room: usize, plain: bool) -> String {
    let words = |name: &str| {
        let word = |word: &str| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        name.split('-').all(|part| !part.is_empty() && word(part))
    };
    match plain && words(tenant) && !tenant.starts_with("x-") && tenant.len() <= room {
        true => tenant.to_string(),
        false => format!("x-{}", hex(&Sha256::digest(tenant)[..16])),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use super::*;

    const TRICKS: [&str; 22] = [
        "initech",
        "Initech",
        "INITECH",
        "a/b",
        "a--2fb",
        "..",
        ".",
        "--2e.",
        "_cdc_audit",
        "a b",
        "a-b",
        "a--b",
        "-a",
        "a-",
        "ä",
        "shop",
        "--73--68--6f--70",
        "x-0",
        "a%2fb",
        "a\\b",
        "a{tenant}b",
        "3f2a9c1e-7d4b-4a1a-9b0e-0c1d2e3f4a5b",
    ];

    #[test]
    fn no_two_tenants_share_a_place_and_none_leaves_it() {
        for (url, home) in [
            ("s3://tenant-{tenant}-audit/shop", "s3://tenant-initech-audit/shop"),
            ("s3://acme/{tenant}/shop", "s3://acme/shop"),
            ("abfss://t-{tenant}@acme.dfs.core.windows.net/shop", "abfss://home@acme.dfs.core.windows.net/shop"),
            ("/lake/{tenant}", "/lake/shop"),
            ("file:///lake/of-{tenant}/x", "file:///lake/home"),
        ] {
            let home = Place::parse(home).unwrap();
            let long = ["a".repeat(100), "ä".repeat(100), format!("{}ö", "ä".repeat(99))];
            let tenants = TRICKS.into_iter().chain(long.iter().map(String::as_str));
            let places: Vec<String> = tenants.map(|tenant| place_of(url, &home, tenant).unwrap().to_string()).collect();
            assert_eq!(places.iter().collect::<BTreeSet<_>>().len(), places.len(), "{places:#?}");
            let depth = url.trim_start_matches("file://").matches('/').count();
            for place in places {
                assert_eq!(place.matches('/').count(), depth, "{place}");
                assert!(!Place::parse(&place).unwrap().overlaps(&home), "{place}");
                assert!(!place.split('/').any(|part| part == ".." || part == "."), "{place}");
                let bucket = authority(&place).1.split('@').next().unwrap().to_string();
                let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
                assert!(bucket.len() <= BUCKET_MAX && bucket.bytes().all(fits) && !bucket.contains("--"), "{bucket}");
            }
        }
    }

    #[test]
    fn names_that_people_give_stay_what_they_are() {
        let uuid = "3f2a9c1e-7d4b-4a1a-9b0e-0c1d2e3f4a5b";
        for name in ["42", "initech", "acme-eu", uuid] {
            assert_eq!(in_path(name, false), name);
            assert_eq!(in_bucket(name, 50, true), name);
        }
        assert_eq!(in_path("Acme Corp", false), "Acme--20Corp");
        assert_eq!(in_path("../x", false), "--2e.--2fx");
        assert_eq!(in_bucket("Acme", 50, true).len(), HASHED);
    }

    #[test]
    fn a_template_has_room_for_every_name() {
        for (url, sound) in [
            ("s3://tenant-{tenant}-audit/shop", true),
            ("s3://{tenant}/{tenant}", true),
            ("s3://{tenant}-{tenant}/x", false),
            ("s3://a-rather-long-name-for-a-bucket-{tenant}/x", false),
            ("abfss://audit@{tenant}.dfs.core.windows.net/x", false),
        ] {
            assert_eq!(is_sound(url), sound, "{url}");
        }
    }
}
