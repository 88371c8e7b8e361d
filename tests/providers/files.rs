//! Secrets and keys in files: rotated, swapped as Kubernetes does, half written, broken, gone.

use std::{path::Path, time::Duration};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use taskcast::auth::{Key, KeySetPlace, Secret, Settings};

use crate::harness::{Pair, Running, claims, issuer, key_set, until};

const OLD: &str = "the old secret of thirty-two bytes";
const NEW: &str = "the new secret of thirty-two bytes";
const NEWEST: &str = "the newest secret of 32 bytes or so";

const CHANGED: &str = "taskcast_key_refreshes_total{outcome=\"ok\",source=\"file\"}";
const FAILED: &str = "taskcast_key_refreshes_total{outcome=\"failed\",source=\"file\"}";

fn signed(secret: &str) -> String {
    encode(&Header::new(Algorithm::HS256), &claims(), &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

fn secrets(current: Secret, previous: Option<Secret>) -> Settings {
    let mut settings = issuer(Key::Secrets { current, previous });
    settings.algorithms = vec!["HS256".to_owned()];
    Settings::Jwt(Box::new(settings))
}

fn in_file(path: &Path) -> Secret {
    Secret { bytes: Vec::new(), file: Some(path.to_owned()) }
}

#[tokio::test]
async fn the_secret_before_is_accepted_beside_the_other() {
    let text = |text: &str| Secret { bytes: text.into(), file: None };
    let running = Running::start(secrets(text(NEW), Some(text(OLD))));
    for (secret, expected) in [(NEW, "u1"), (OLD, "u1"), (NEWEST, "INVALID_TOKEN")] {
        assert_eq!(running.outcome(&signed(secret)).await, expected);
    }
}

#[tokio::test]
async fn a_rotation_in_files_needs_no_restart_and_no_token_is_refused_on_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let (current, previous) = (folder.path().join("current"), folder.path().join("previous"));
    std::fs::write(&current, format!("{OLD}\n")).unwrap();
    std::fs::write(&previous, "").unwrap();
    let running = Running::start(secrets(in_file(&current), Some(in_file(&previous))));
    assert_eq!(running.outcome(&signed(OLD)).await, "u1");
    assert_eq!(running.outcome(&signed(NEW)).await, "INVALID_TOKEN");
    // The old one is put down as such first.
    std::fs::write(&previous, OLD).unwrap();
    std::fs::write(&current, NEW).unwrap();
    let old_is_good = async || running.outcome(&signed(OLD)).await == "u1";
    until("the new one counts", async || {
        assert!(old_is_good().await);
        running.outcome(&signed(NEW)).await == "u1"
    })
    .await;
    std::fs::write(&previous, "\n").unwrap();
    running.until(&signed(OLD), "INVALID_TOKEN").await;
    assert_eq!(running.outcome(&signed(NEW)).await, "u1");
    assert!(running.metric(CHANGED) >= 2);
}

/// `name` is a link to `..data/name`, `..data` one to a folder, which is swapped as a whole.
#[tokio::test]
async fn a_mount_of_kubernetes_that_swaps_its_link_is_noticed() {
    let mount = tempfile::tempdir().unwrap();
    let at = |name: &str| mount.path().join(name);
    let swap = |version: &str, secret: &str| {
        std::fs::create_dir(at(version)).unwrap();
        std::fs::write(at(version).join("secret"), secret).unwrap();
        std::os::unix::fs::symlink(version, at("..data_tmp")).unwrap();
        std::fs::rename(at("..data_tmp"), at("..data")).unwrap();
    };
    swap("..2026_1", OLD);
    std::os::unix::fs::symlink("..data/secret", at("secret")).unwrap();
    let running = Running::start(secrets(in_file(&at("secret")), None));
    assert_eq!(running.outcome(&signed(OLD)).await, "u1");
    swap("..2026_2", NEW);
    std::fs::remove_dir_all(at("..2026_1")).unwrap();
    running.until(&signed(NEW), "u1").await;
    assert_eq!(running.outcome(&signed(OLD)).await, "INVALID_TOKEN");
}

#[tokio::test]
async fn a_bad_file_keeps_the_keys_is_counted_once_and_a_good_one_follows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, OLD).unwrap();
    let running = Running::start(secrets(in_file(&path), None));
    let bad = |content: &[u8]| std::fs::write(&path, content).unwrap();
    let mut failed = 0;
    for content in [&b"short"[..], b"", &[0xff; 40]] {
        bad(content);
        failed += 1;
        until("it is refused", async || running.metric(FAILED) == failed).await;
        assert_eq!(running.outcome(&signed(OLD)).await, "u1");
    }
    std::fs::remove_file(&path).unwrap();
    until("it is missed", async || running.metric(FAILED) == failed + 1).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(running.metric(FAILED), failed + 1, "told once");
    assert_eq!(running.outcome(&signed(OLD)).await, "u1");
    std::fs::write(&path, NEW).unwrap();
    running.until(&signed(NEW), "u1").await;
}

#[tokio::test]
async fn public_keys_and_key_sets_in_files_rotate_too() {
    let (old, new) = (Pair::elliptic(), Pair::elliptic());
    let folder = tempfile::tempdir().unwrap();
    let (pem, jwks) = (folder.path().join("public.pem"), folder.path().join("jwks.json"));
    std::fs::write(&pem, &old.public_pem).unwrap();
    let set = |keys: &[serde_json::Value]| serde_json::json!({ "keys": keys }).to_string();
    std::fs::write(&jwks, set(&[old.jwk("old")])).unwrap();
    let mut of_pem = issuer(Key::PublicKeyFile(pem.clone()));
    of_pem.algorithms = vec!["ES256".to_owned()];
    let mut of_set = key_set("https://unused");
    let Key::KeySet(settings) = &mut of_set else { panic!("a key set") };
    settings.place = KeySetPlace::File(jwks.clone());
    let of_pem = Running::start(Settings::Jwt(Box::new(of_pem)));
    let of_set = Running::start(Settings::Jwt(Box::new(issuer(of_set))));
    assert_eq!(
        (of_pem.outcome(&old.token("old")).await, of_set.outcome(&old.token("old")).await),
        ("u1".into(), "u1".into())
    );
    assert_eq!(of_set.outcome(&new.token("new")).await, "INVALID_TOKEN");
    // Both in one file, for as long as it takes.
    std::fs::write(&pem, [&old.public_pem[..], &new.public_pem[..]].concat()).unwrap();
    std::fs::write(&jwks, set(&[old.jwk("old"), new.jwk("new")])).unwrap();
    for running in [&of_pem, &of_set] {
        running.until(&new.token("new"), "u1").await;
        assert_eq!(running.outcome(&old.token("old")).await, "u1");
    }
}
