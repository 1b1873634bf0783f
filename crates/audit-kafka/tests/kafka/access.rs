use std::collections::BTreeMap;

use audit_config::{SecretRef, Span};
use audit_core::sink::{Action, Sink};
use audit_kafka::{Mechanism, SaslConfig, TlsConfig};
use audit_testkit::{Fixture, KAFKA_USER, Kafka};
use base64::Engine as _;
use tempfile::TempDir;

use crate::place::{Place, shown};

const TABLE: &str = "table public.users (id int4 key)\nbegin\ninsert public.users [1]\ncommit";

/// A file of the test, and its path.
fn file(folder: &TempDir, name: &str, text: &str) -> std::path::PathBuf {
    let path = folder.path().join(name);
    audit_testkit::write_secret(&path, text);
    path
}

fn sasl(mechanism: Mechanism, password: std::path::PathBuf) -> SaslConfig {
    SaslConfig {
        mechanism,
        username: Some(KAFKA_USER.0.to_owned()),
        password: Some(SecretRef::File(password)),
        token_file: None,
        allow_clear_text: true,
    }
}

async fn works(place: &Place) {
    let batches = Fixture::of(TABLE);
    let mut sink = place.taken().await;
    place.deliver(&mut sink, &batches).await.unwrap();
    place.holds(&place.topic("users"), &batches);
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_are_proved_in_three_ways_in_the_clear_and_over_tls() {
    let kafka = Kafka::shared().await;
    let folder = tempfile::tempdir().unwrap();
    let password = file(&folder, "password", KAFKA_USER.1);
    let ca = file(&folder, "ca.pem", kafka.authority().certificate());
    for mechanism in [Mechanism::Plain, Mechanism::ScramSha256, Mechanism::ScramSha512] {
        for tls in [None, Some(TlsConfig { ca_file: Some(ca.clone()), ..TlsConfig::default() })] {
            let mut place = Place::on(kafka).await;
            place.config.brokers = vec![if tls.is_some() { kafka.sasl_tls() } else { kafka.sasl() }];
            place.config.plain_text = tls.is_none();
            place.config.tls = tls;
            place.config.sasl = Some(sasl(mechanism, password.clone()));
            works(&place).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_said_and_not_shown() {
    let kafka = Kafka::shared().await;
    let folder = tempfile::tempdir().unwrap();
    let mut place = Place::on(kafka).await;
    place.config.brokers = vec![kafka.sasl()];
    place.config.sasl = Some(sasl(Mechanism::ScramSha256, file(&folder, "password", "wr0ng-pass")));
    let mut sink = place.sink();
    let error = sink.take(&place.identity()).await.unwrap_err();
    assert_eq!(error.action, Action::Stop, "{}", shown(&error));
    let probed = audit_kafka::probe(&place.config, &place.source, "stream").await.unwrap_err();
    for said in [shown(&error), shown(&probed), format!("{:?} {sink:?}", place.config)] {
        assert!(!said.contains("wr0ng"), "{said}");
    }
    assert!(shown(&probed).contains("credentials"), "{}", shown(&probed));
}

/// An unsigned token, which this broker accepts.
fn token(seconds: i64) -> String {
    let now = audit_core::position::Micros::now().0 / 1_000_000;
    let part = |text: String| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    let claims = format!(r#"{{"sub":"cdc","iat":{now},"exp":{}}}"#, now + seconds);
    format!("{}.{}.", part(r#"{"alg":"none"}"#.to_owned()), part(claims))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_in_a_file_is_read_and_read_again() {
    let kafka = Kafka::shared().await;
    let folder = tempfile::tempdir().unwrap();
    let mut place = Place::on(kafka).await;
    place.make_topic(&place.topic("users"), 1, &[]).await;
    place.config.brokers = vec![kafka.sasl()];
    place.config.create_topics = false;
    // As Kubernetes projects it: open to all that run in the container.
    let token = file(&folder, "token", &token(300));
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    place.config.sasl = Some(SaslConfig {
        mechanism: Mechanism::OAuthBearer,
        username: None,
        password: None,
        token_file: Some(token),
        allow_clear_text: true,
    });
    works(&place).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_must_be_vouched_for_and_a_client_shows_its_certificate() {
    let kafka = Kafka::shared().await;
    let folder = tempfile::tempdir().unwrap();
    let client = kafka.authority().client("cdc-audit");
    let tls = TlsConfig {
        ca_file: Some(file(&folder, "ca.pem", kafka.authority().certificate())),
        certificate_file: Some(file(&folder, "cert.pem", &client.certificate)),
        key_file: Some(file(&folder, "key.pem", &client.key)),
        ..TlsConfig::default()
    };
    let mut place = Place::on(kafka).await;
    place.config.brokers = vec![kafka.tls()];
    place.config.plain_text = false;
    place.config.tls = Some(tls.clone());
    works(&place).await;

    let stranger = audit_testkit::Authority::new();
    let refused = TlsConfig { ca_file: Some(file(&folder, "other.pem", stranger.certificate())), ..tls.clone() };
    place.config.tls = Some(refused.clone());
    place.config.transaction_timeout = Span::secs(2);
    place.config.client = BTreeMap::from([("socket.connection.setup.timeout.ms".to_owned(), "2000".to_owned())]);
    let error = audit_kafka::probe(&place.config, &place.source, "stream").await.unwrap_err();
    assert!(shown(&error).to_lowercase().contains("certificate"), "{}", shown(&error));
    // Without verification the certificate is accepted.
    place.config.tls = Some(TlsConfig { verify: false, ca_file: None, ..refused });
    audit_kafka::probe(&place.config, &place.source, "stream").await.unwrap();
}
