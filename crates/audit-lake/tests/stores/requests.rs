use std::sync::{Arc, Mutex};

use audit_core::sink::{Action, Sink};
use audit_lake::place::Encryption;
use audit_lake::probe;
use audit_testkit::{Authority, Fault, ObjectKind, ObjectServer, Request};

use crate::Site;
use crate::common::Lake;
use crate::common::story::{World, first_run};

/// Records all requests from here on.
fn noted(site: &Site) -> Arc<Mutex<Vec<Request>>> {
    let noted = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&noted);
    site.proxy().plan(move |request, _| {
        notes.lock().unwrap().push(request.clone());
        None
    });
    noted
}

fn puts(noted: &Mutex<Vec<Request>>) -> Vec<Request> {
    let puts = noted.lock().unwrap().iter().filter(|request| request.method == "PUT").cloned().collect::<Vec<_>>();
    assert!(puts.len() > 10);
    puts
}

fn is_data(request: &Request) -> bool {
    request.target.contains("year")
}

/// Lifecycle rules and storage class apply only to data files, because the log is read all the time.
#[tokio::test(flavor = "multi_thread")]
async fn only_data_files_have_the_storage_class() {
    for (kind, header, class) in [
        (ObjectKind::S3, "x-amz-storage-class", "STANDARD_IA"),
        (ObjectKind::Gcs, "x-goog-storage-class", "NEARLINE"),
        (ObjectKind::Azure, "x-ms-access-tier", "Cool"),
    ] {
        let site = Site::of(kind).await;
        let (mut lake, world) = (site.lake(), World::new());
        lake.config.store.storage_class = Some(class.to_string());
        let noted = noted(&site);
        first_run(&lake, &world, false).await.unwrap();
        for put in puts(&noted) {
            assert_eq!(put.header(header), is_data(&put).then_some(class), "{kind:?} {}", put.target);
        }
    }
}

/// A put that two daemons must not both succeed with has a condition; every put to S3 has its checksum.
#[tokio::test(flavor = "multi_thread")]
async fn every_put_has_its_condition_and_its_checksum() {
    for (kind, header, value) in [
        (ObjectKind::S3, "if-none-match", "*"),
        (ObjectKind::Gcs, "x-goog-if-generation-match", "0"),
        (ObjectKind::Azure, "if-none-match", "*"),
    ] {
        let site = Site::of(kind).await;
        let (lake, world) = (site.lake(), World::new());
        let noted = noted(&site);
        first_run(&lake, &world, false).await.unwrap();
        for put in puts(&noted) {
            assert_eq!(put.header(header), Some(value), "{kind:?} {}", put.target);
            assert_eq!(put.header("x-amz-checksum-sha256").is_some(), kind == ObjectKind::S3, "{}", put.target);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_object_is_written_with_the_encryption_that_was_asked_for() {
    let site = Site::of(ObjectKind::S3).await;
    for (encryption, key, name) in [(Encryption::SseS3, None, "AES256"), (Encryption::SseKms, Some("key-1"), "aws:kms")]
    {
        let (mut lake, world) = (site.lake(), World::new());
        lake.config.store.encryption = Some(encryption);
        lake.config.store.kms_key = key.map(str::to_string);
        let noted = noted(&site);
        first_run(&lake, &world, false).await.unwrap();
        for put in puts(&noted) {
            assert_eq!(put.header("x-amz-server-side-encryption"), Some(name), "{}", put.target);
            assert_eq!(put.header("x-amz-server-side-encryption-aws-kms-key-id"), key, "{}", put.target);
        }
    }
}

/// ⚠ A store that overwrites what should be created gives no fence: two daemons would replace each other's commits.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_conditional_puts_is_refused() {
    let site = Site::of(ObjectKind::Gcs).await;
    let lake = site.lake();
    site.proxy().plan(|_, _| Some(Fault::Unconditional));
    let error = probe(&lake.config, "shop").await.unwrap_err();
    assert!(error.to_string().contains("ignores conditional puts"), "{error}");
    assert!(error.hint().unwrap().contains("honours `If-None-Match`"));
    let error = lake.sink().take(&crate::common::identity()).await.unwrap_err();
    assert_eq!(error.action, Action::Stop, "{error}");
    site.proxy().heal();
    probe(&lake.config, "shop").await.unwrap();
}

/// A private authority is trusted only if `ca_file` names it.
#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority_is_trusted_by_its_file() {
    let authority = Authority::new();
    let identity = authority.server(&["127.0.0.1"]);
    let server = tokio::task::spawn_blocking(move || ObjectServer::over_tls(&identity)).await.unwrap();
    let mut lake = Lake::in_bucket(&server, server.port());
    lake.config.store.allow_http = false;
    let error = probe(&lake.config, "shop").await.unwrap_err();
    assert!(format!("{error:?}").contains("UnknownIssuer"), "{error:?}");
    let file = lake.path().join("ca.pem");
    std::fs::write(&file, authority.certificate()).unwrap();
    lake.config.store.ca_file = Some(file.clone());
    probe(&lake.config, "shop").await.unwrap();
    std::fs::remove_file(file).unwrap();
    let error = probe(&lake.config, "shop").await.unwrap_err();
    assert!(error.to_string().contains("ca.pem"), "{error}");
}

/// What the store says about credentials is passed on; the credentials are not.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_is_refused_and_not_repeated() {
    for kind in [ObjectKind::S3, ObjectKind::Azure] {
        let site = Site::of(kind).await;
        let mut lake = site.lake();
        let secret = lake.path().join("secret");
        audit_testkit::write_secret(&secret, "Z2VoZWlt");
        lake.config.store.secret_key = Some(audit_config::SecretRef::File(secret.clone()));
        let error = lake.sink().take(&crate::common::identity()).await.unwrap_err();
        let said = format!("{error} {:?} {:?}", error.hint, std::error::Error::source(&error).map(ToString::to_string));
        assert_eq!(error.action, Action::Retry, "{said}");
        assert!(said.contains("403") && said.contains("the store refuses these credentials"), "{said}");
        assert!(!said.contains("Z2VoZWlt") && !said.contains('\n') && !said.contains("StringToSign"), "{said}");
        std::fs::remove_file(&secret).unwrap();
        let error = lake.sink().take(&crate::common::identity()).await.unwrap_err();
        assert_eq!(error.action, Action::Stop, "{error}");
        assert!(error.to_string().contains("store.secret_key cannot be read"), "{error}");
    }
}
