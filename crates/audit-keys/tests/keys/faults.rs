//! Key services with problems: the error says what went wrong, and nothing secret.

use std::time::Duration;

use audit_cipher::{KeyId, Kind, SecretKey};
use audit_config::Span;
use audit_keys::{KeyError, Master, MasterKey, Place, Wrapped};
use audit_testkit::{Fault, FaultProxy, Scripted, free_port};
use serde_json::json;

use crate::services::{self, Service};

async fn wrap(config: &Master) -> Result<Wrapped, KeyError> {
    let id = KeyId::generate(Kind::Data);
    let place = Place { source: "shop", class: "pii", kind: Kind::Data, key: &id };
    MasterKey::new(config).unwrap().wrap(&SecretKey::generate(), &place).await
}

/// Returns the name of the variant.
fn kind(error: &KeyError) -> String {
    format!("{error:?}").split([' ', '{']).next().unwrap().to_owned()
}

/// The answers of each service if a key is disabled, access is denied, or it is overloaded.
#[tokio::test(flavor = "multi_thread")]
async fn what_services_say_is_understood() {
    let server = Scripted::start(|_| (500, String::new()));
    let port = server.port();
    let aws = |code: &str| json!({"__type": format!("com.amazonaws.kms#{code}"), "message": "SECRET"}).to_string();
    let gcp = |status: &str| json!({"error": {"code": 1, "status": status, "message": "SECRET"}}).to_string();
    let azure = |code: &str, inner: &str| {
        json!({"error": {"code": code, "message": "SECRET", "innererror": {"code": inner}}}).to_string()
    };
    let vault = |said: &str| json!({"errors": [said]}).to_string();
    let services: [Service; 4] =
        [services::aws(port), services::gcp(port), services::azure(port), services::vault("vault", port)];
    let cases: [(usize, u16, String, &str); 24] = [
        (0, 400, aws("DisabledException"), "Disabled"),
        (0, 400, aws("KMSInvalidStateException"), "Disabled"),
        (0, 400, aws("AccessDeniedException"), "Denied"),
        (0, 403, aws("UnrecognizedClientException"), "Denied"),
        (0, 400, aws("ExpiredTokenException"), "Denied"),
        (0, 400, aws("ThrottlingException"), "Unwell"),
        (0, 400, aws("NotFoundException"), "NoMaster"),
        (0, 400, aws("IncorrectKeyException"), "Refused"),
        (0, 500, aws("KMSInternalException"), "Unwell"),
        (1, 403, gcp("PERMISSION_DENIED"), "Denied"),
        (1, 400, gcp("FAILED_PRECONDITION"), "Disabled"),
        (1, 429, gcp("RESOURCE_EXHAUSTED"), "Unwell"),
        (1, 404, gcp("NOT_FOUND"), "NoMaster"),
        (1, 503, "upstream is away".to_owned(), "Unwell"),
        (2, 403, azure("Forbidden", "KeyDisabled"), "Disabled"),
        (2, 403, azure("Forbidden", "ForbiddenByRbac"), "Denied"),
        (2, 429, azure("Throttled", ""), "Unwell"),
        (2, 404, azure("KeyNotFound", "KeyNotFound"), "NoMaster"),
        (3, 403, vault("1 error occurred:\n\t* permission denied\n\n"), "Denied"),
        (3, 503, vault("Vault is sealed"), "Unwell"),
        (3, 400, vault("encryption key not found"), "NoMaster"),
        (3, 400, vault("ciphertext or signature version is disallowed by policy (too old)"), "Disabled"),
        (3, 307, String::new(), "Nonsense"),
        (3, 200, "<html>a portal</html>".to_owned(), "Nonsense"),
    ];
    for (service, status, body, expected) in cases {
        let said = body.clone();
        server.say(move |request| match request.target.contains("/oauth2/") {
            true => (200, json!({"expires_in": "3599", "access_token": "given"}).to_string()),
            false => (status, said.clone()),
        });
        let error = wrap(&services[service].master).await.unwrap_err();
        let shown = format!("{error} {error:?} {}", error.hint());
        assert_eq!(kind(&error), expected, "{body}: {shown}");
        assert!(!shown.contains("SECRET") && !shown.contains("given"), "{shown}");
    }
}

/// A service reports success, but its answer is invalid.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_none_is_no_key() {
    let server = Scripted::start(|_| (200, "{}".to_owned()));
    let port = server.port();
    for service in [services::aws(port), services::gcp(port), services::azure(port), services::vault("vault", port)] {
        for body in ["{}", "[]", "null", "", r#"{"data": {"ciphertext": 1}}"#, &"x".repeat(100_000)] {
            let said = body.to_owned();
            server.say(move |_| (200, said.clone()));
            let error = wrap(&service.master).await.unwrap_err();
            assert_eq!(kind(&error), "Nonsense", "{}: {error:?}", service.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_down_slow_or_cut_off_is_named() {
    let moto = tokio::task::spawn_blocking(services::moto).await.unwrap();
    let proxy = FaultProxy::to(moto.port());
    let Master::AwsKms(mut aws) = services::aws(proxy.port()).master else { unreachable!() };
    aws.secret_key = None;
    aws.access_key_id = None;
    // Without access keys the library would look for an instance. The folder that holds the keys must stay alive.
    let service = services::aws(proxy.port());
    let Master::AwsKms(keys) = &service.master else { unreachable!() };
    (aws.access_key_id, aws.secret_key) = (keys.access_key_id.clone(), keys.secret_key.clone());
    aws.connection.timeout = Span::secs(30);
    assert!(wrap(&Master::AwsKms(aws.clone())).await.is_ok());
    let mut faults = vec![
        (Fault::SlowDown, "Unwell"),
        (Fault::Fails, "Unwell"),
        (Fault::CutRequest, "Unreachable"),
        (Fault::DoneButFails, "Unwell"),
        (Fault::DoneButClosed, "Unreachable"),
        (Fault::DoneButReset, "Unreachable"),
        (Fault::CutAnswer, "Unreachable"),
    ];
    for (fault, expected) in faults.drain(..) {
        proxy.plan(move |_, _| Some(fault));
        let error = wrap(&Master::AwsKms(aws.clone())).await.unwrap_err();
        assert_eq!(kind(&error), expected, "{fault:?}: {error:?}");
    }
    proxy.plan(|_, _| Some(Fault::Slow));
    assert!(wrap(&Master::AwsKms(aws.clone())).await.is_ok());
    aws.connection.timeout = Span::from(Duration::from_millis(300));
    proxy.plan(|_, _| Some(Fault::DoneButSilent));
    assert_eq!(kind(&wrap(&Master::AwsKms(aws.clone())).await.unwrap_err()), "Unreachable");
    aws.endpoint = Some(format!("http://127.0.0.1:{}", free_port()));
    let error = wrap(&Master::AwsKms(aws)).await.unwrap_err();
    assert_eq!(kind(&error), "Unreachable");
    assert!(error.to_string().contains("aws_kms alias/pii"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_are_wrong_are_denied() {
    let server = crate::doubles::azure();
    let folder = tempfile::tempdir().unwrap();
    let Master::AzureKeyVault(mut azure) = services::azure(server.port()).master else { unreachable!() };
    azure.client_secret = Some(services::secret(folder.path(), "secret", "wrong"));
    assert_eq!(kind(&wrap(&Master::AzureKeyVault(azure)).await.unwrap_err()), "Denied");

    let server = crate::doubles::vault();
    let Master::Vault(mut vault) = services::vault("vault", server.port()).master else { unreachable!() };
    vault.token = Some(services::secret(folder.path(), "token", "wrong"));
    assert_eq!(kind(&wrap(&Master::Vault(vault.clone())).await.unwrap_err()), "Denied");
    vault.token = Some(audit_config::SecretRef::File(folder.path().join("none")));
    assert_eq!(kind(&wrap(&Master::Vault(vault)).await.unwrap_err()), "Secret");
}

/// Tests rights, old versions and a sealed vault with the real Vault. If it is not compiled, there are only the
/// scripted answers above.
#[tokio::test(flavor = "multi_thread")]
async fn vault_itself_denies_and_forgets() {
    let started = tokio::task::spawn_blocking(audit_testkit::KeyServer::vault).await.unwrap();
    let Some(server) = started else { return };
    server.ask_vault("transit/keys/pii", "{}");
    let service = services::vault("vault", server.port());
    let id = KeyId::generate(Kind::Data);
    let place = Place { source: "shop", class: "pii", kind: Kind::Data, key: &id };
    let master = MasterKey::new(&service.master).unwrap();
    let wrapped = master.wrap(&SecretKey::generate(), &place).await.unwrap();
    assert_eq!(wrapped.master, "vault transit/pii v1");

    // This token may only wrap.
    let policy = r#"{"policy": "path \"transit/encrypt/*\" { capabilities = [\"update\"] }"}"#;
    server.ask_vault("sys/policies/acl/daemon", policy);
    let made = server.ask_vault("auth/token/create", r#"{"policies": ["daemon"], "no_parent": true}"#);
    let folder = tempfile::tempdir().unwrap();
    let Master::Vault(mut limited) = service.master.clone() else { unreachable!() };
    let token = made["auth"]["client_token"].as_str().expect("a token");
    limited.token = Some(services::secret(folder.path(), "token", token));
    let daemon = MasterKey::new(&Master::Vault(limited.clone())).unwrap();
    assert!(daemon.wrap(&SecretKey::generate(), &place).await.is_ok());
    assert_eq!(kind(&daemon.unwrap(&wrapped, &place).await.unwrap_err()), "Denied");
    // The token may update but not create, so a missing key is not made.
    limited.key = "missing".to_owned();
    let missing = MasterKey::new(&Master::Vault(limited)).unwrap();
    let error = missing.wrap(&SecretKey::generate(), &place).await.unwrap_err();
    assert!(matches!(error, KeyError::Denied { .. } | KeyError::NoMaster { .. }), "{error:?}");

    server.ask_vault("transit/keys/pii/rotate", "{}");
    assert!(master.unwrap(&wrapped, &place).await.is_ok());
    assert!(master.wrap(&SecretKey::generate(), &place).await.unwrap().master.ends_with(" v2"));
    server.ask_vault("transit/keys/pii/config", r#"{"min_decryption_version": 2}"#);
    assert_eq!(kind(&master.unwrap(&wrapped, &place).await.unwrap_err()), "Disabled");
    server.ask_vault("sys/seal", "{}");
    assert_eq!(kind(&master.wrap(&SecretKey::generate(), &place).await.unwrap_err()), "Unwell");
}
