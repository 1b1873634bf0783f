#![allow(clippy::unwrap_used)]

use super::*;
use crate::endpoint::PgEndpoint;
use crate::ssl::SslMode;

fn parse(url: &str) -> ConnectConfig {
    PgEndpoint::new(url).parse().unwrap_or_else(|error| panic!("{url}: {error}"))
}

#[test]
fn urls_and_key_value_strings_say_the_same() {
    let check = |text: &str, expected: &str| assert_eq!(parse(text).describe(), expected, "{text}");
    check("postgres://ann:secret@db:5433/shop", "ann@db:5433/shop");
    check("postgresql://ann@db", "ann@db:5432/ann");
    check("host=db port=5433 user=ann dbname=shop password=secret", "ann@db:5433/shop");
    check("postgres://ann@[::1]:5433/shop", "ann@::1:5433/shop");
    check("postgres://ann@a:1,b,c:3/shop", "ann@a:1,b:5432,c:3/shop");
    check("host=a,b port=7 user=ann", "ann@a:7,b:7/ann");
    check("postgres://ann@%2Frun%2Fpg:5433/shop", "ann@/run/pg:5433/shop");
    check("postgres:///shop?host=/run/pg&user=ann", "ann@/run/pg:5432/shop");
    check("host=/run/pg user='ann lee' dbname='it\\'s'", "ann lee@/run/pg:5432/it's");
    check("host=db hostaddr=10.0.0.7 user=ann", "ann@db:5432/ann");
    check("hostaddr=10.0.0.7 user=ann", "ann@10.0.0.7:5432/ann");
    check("user=ann", "ann@/var/run/postgresql:5432,/tmp:5432/ann");
}

#[test]
fn hostaddr_is_where_to_connect_and_host_the_name() {
    let target = parse("host=db hostaddr=10.0.0.7 user=ann").targets.remove(0);
    assert_eq!((target.name.as_str(), target.place), ("db", Place::Tcp("10.0.0.7".to_owned())));
}

#[test]
fn tls_is_verified_unless_told_otherwise() {
    let check = |text: &str, expected| {
        let config = parse(text);
        assert_eq!(config.ssl.mode_for(&config.targets[0], None), expected, "{text}");
    };
    check("postgres://ann@db.internal/shop", SslMode::VerifyFull);
    check("postgres://ann@10.0.0.7/shop", SslMode::VerifyFull);
    check("postgres://ann@localhost/shop", SslMode::Prefer);
    check("postgres://ann@127.0.0.1/shop", SslMode::Prefer);
    check("postgres://ann@[::1]/shop", SslMode::Prefer);
    check("postgres://ann@127.0.0.1/shop?sslrootcert=/ca.pem", SslMode::VerifyFull);
    check("postgres://ann@127.0.0.1/shop?sslrootcert=system", SslMode::VerifyFull);
    check("postgres://ann@127.0.0.1/shop?sslnegotiation=direct", SslMode::VerifyFull);
    check("postgres://ann@db.internal/shop?sslmode=disable", SslMode::Disable);
    check("postgres://ann@db.internal/shop?sslmode=prefer", SslMode::Prefer);
    check("postgres://ann@db.internal/shop?sslmode=require", SslMode::Require);
    check("postgres://ann@db.internal/shop?sslmode=verify-ca&sslrootcert=/ca.pem", SslMode::VerifyCa);
    // A host named like this machine is another one if its address is.
    check("host=localhost hostaddr=10.0.0.5 user=ann", SslMode::VerifyFull);
    check("host=127.0.0.1 hostaddr=10.0.0.5 user=ann", SslMode::VerifyFull);
    check("host=localhost hostaddr=127.0.0.1 user=ann", SslMode::Prefer);
    let (config, elsewhere) = (parse("host=localhost user=ann"), "10.0.0.5".parse().unwrap());
    assert_eq!(config.ssl.mode_for(&config.targets[0], Some(elsewhere)), SslMode::VerifyFull);
    check("host=/run/pg user=ann sslmode=verify-full", SslMode::Disable);
    // A name that is not this machine's is verified, whatever its address.
    check("host=db.internal hostaddr=127.0.0.1 user=ann", SslMode::VerifyFull);
}

#[test]
fn limits_have_defaults_and_libpqs_units() {
    let config = parse("host=db user=ann");
    assert_eq!(config.connect_timeout, Some(Duration::from_secs(10)));
    assert_eq!(config.tcp.user_timeout, None);
    assert!(config.tcp.keepalive.is_some());
    let stricter = config.or_tcp_user_timeout(Duration::from_secs(60));
    assert_eq!(stricter.tcp.user_timeout, Some(Duration::from_secs(60)));
    let config = parse("host=db user=ann connect_timeout=0 tcp_user_timeout=1500 keepalives=0");
    assert_eq!(config.connect_timeout, None);
    assert!(config.tcp.keepalive.is_none());
    let kept = config.or_tcp_user_timeout(Duration::from_secs(60));
    assert_eq!(kept.tcp.user_timeout, Some(Duration::from_millis(1500)));
    parse("host=db user=ann keepalives_idle=5 keepalives_interval=1 keepalives_count=2 sslsni=1 gssencmode=disable");
    assert_eq!(parse("host=db user=ann target_session_attrs=primary").wanted, Wanted::Primary);
}

#[test]
fn what_is_wrong_is_named_with_a_hint() {
    let check = |text: &str, what: &str, hint: &str| {
        let error = PgEndpoint::new(text).parse().err().unwrap_or_else(|| panic!("{text} was accepted"));
        assert!(error.to_string().contains(what), "{text}: {error}");
        assert!(error.hint().unwrap().contains(hint), "{text}: {:?}", error.hint());
        assert_eq!(error.outcome(), crate::Outcome::Fix);
    };
    check("postgres://ann@db/shop?sslmod=require", "unknown connection option sslmod", "did you mean sslmode?");
    check("host=db usr=ann", "usr", "did you mean user?");
    check("host=db colour_of_the_sky=blue", "colour_of_the_sky", "remove it");
    check("host=db service=shop", "service is not supported", "remove it");
    check("host=db sslmode=allow", "allow is not supported", "prefer");
    check("host=db sslmode=on", "sslmode", "verify-full");
    check("host=db sslmode=verify-ca", "sslmode=verify-ca", "sslrootcert=FILE");
    check("host=db require_auth=pasword", "require_auth", "scram-sha-256");
    check("postgres://postgres:p@ss/wo#rd@db/shop", "cannot be read", "percent-encoded");
    check("host=db sslmode=require sslrootcert=system", "sslrootcert=system", "verify-full");
    check("host=db sslmode=prefer sslnegotiation=direct", "sslnegotiation=direct", "verify-full");
    check("host=db sslcert=/c.pem", "sslcert and sslkey", "both");
    check("host=db port=many", "port", "manual");
    check("host=a,b,c port=1,2 user=ann", "host and port", "one port");
    check("host=a,b hostaddr=10.0.0.7 user=ann", "host and hostaddr", "one of each");
    check("host=db connect_timeout=soon", "connect_timeout", "seconds");
    check("host=db tcp_user_timeout=1s", "tcp_user_timeout", "milliseconds");
    check("host=db target_session_attrs=prefer-standby", "target_session_attrs", "primary");
    check("host=db client_encoding=LATIN1", "client_encoding", "UTF8");
    check("host=db channel_binding=perhaps", "channel_binding", "manual");
    let both = PgEndpoint {
        password_file: Some("/p".into()),
        password_env: Some("P".to_owned()),
        ..PgEndpoint::new("host=db")
    };
    assert!(both.parse().unwrap_err().to_string().contains("password_file and password_env"));
}

#[test]
fn a_password_in_the_url_is_never_shown() {
    for url in [
        "postgres://ann:hush@db/shop",
        "host=db user=ann password=hush",
        "host=db user=ann password=hush port=x",
        "host=db password=a hush=b",
        "postgres://ann:p@hush/wo#rd@db/shop",
        "postgres://ann:p@hush@db/shop",
        "postgres://ann:hush/word?x=y@db/shop",
        "postgres://ann:p#hush@db/shop@x",
    ] {
        let endpoint = PgEndpoint::new(url);
        let shown = format!("{endpoint:?} {} {:?}", endpoint.describe(), endpoint.parse());
        assert!(!shown.contains("hush"), "{shown}");
    }
}

#[test]
fn servers_that_nothing_verifies_are_named() {
    let check = |text: &str, expected: &[&str]| assert_eq!(parse(text).unverified(), expected, "{text}");
    check("postgres://ann@db/shop", &[]);
    check("postgres://ann@localhost/shop?sslmode=disable", &[]);
    check("host=/run/pg user=ann", &[]);
    check("postgres://ann@db/shop?sslmode=verify-ca&sslrootcert=/ca.pem", &[]);
    check("postgres://ann@db/shop?sslmode=require&sslrootcert=/ca.pem", &[]);
    check("postgres://ann@db/shop?sslmode=prefer&sslrootcert=/ca.pem", &["db:5432"]);
    check("postgres://ann@a,localhost,b:7/shop?sslmode=require", &["a:5432", "b:7"]);
    check("host=localhost hostaddr=10.0.0.5 user=ann sslmode=disable", &["localhost:5432"]);
}

#[test]
fn the_configuration_embeds_an_endpoint() {
    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Source {
        name: String,
        #[serde(flatten)]
        endpoint: PgEndpoint,
    }
    let source: Source =
        toml::from_str("name = 'shop'\nurl = 'postgres://ann@db/shop'\npassword_file = '/run/p'").unwrap();
    assert_eq!((source.name.as_str(), source.endpoint.password_file), ("shop", Some("/run/p".into())));
    let error = toml::from_str::<Source>("name = 'shop'\nurl = 'postgres://db'\npasswordfile = '/p'").unwrap_err();
    assert!(error.message().contains("passwordfile"), "{error}");
}
