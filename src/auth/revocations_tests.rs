//! What is revoked, for how long, and what of it is kept.

use super::*;
use crate::auth::Issued;

const DAY_MS: u64 = 24 * 3600 * 1000;
const NOW_MS: u64 = 1_790_000_000_000;

/// After its end a token may be taken for so long by a service with a generous leeway.
const LEEWAY_MS: u64 = 3_600_000;

fn token(id: &str, expires_at_ms: Option<u64>) -> Revocation {
    Revocation { revoked: Revoked::Token(id.into()), expires_at_ms }
}

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn tokens_of(name: &str, issued_before_ms: Option<u64>) -> Revocation {
    Revocation { revoked: Revoked::User { user_id: user(name), issued_before_ms }, expires_at_ms: None }
}

fn caller(name: &str, token_id: Option<&str>, issued_at_ms: Option<u64>) -> Identity {
    let issued = Issued { token_id: token_id.map(Into::into), at_ms: issued_at_ms, opaque: None };
    Identity { user: Some(user(name)), issued: Some(Box::new(issued)), ..Identity::default() }
}

fn days(days: u64, max: usize) -> Revocations {
    Revocations::new(RevocationSettings { max, retain: Duration::from_secs(days * 24 * 3600) })
}

fn apply(revocations: &Revocations, revocation: &Revocation) -> Kept {
    revocations.apply(revocation, Some(NOW_MS), NOW_MS).unwrap()
}

#[test]
fn a_token_is_revoked_by_its_id_and_no_other_is() {
    let revocations = days(30, 10);
    assert!(!revocations.is_revoked(&caller("u1", Some("a"), None)));
    assert_eq!(apply(&revocations, &token("a", None)), Kept { held: 1, dropped: 0 });
    assert_eq!(apply(&revocations, &token("a", None)), Kept { held: 1, dropped: 0 });
    for (id, is_revoked) in [(Some("a"), true), (Some("A"), false), (Some("b"), false), (None, false)] {
        assert_eq!(revocations.is_revoked(&caller("u1", id, Some(NOW_MS))), is_revoked, "{id:?}");
    }
}

#[test]
fn of_a_user_the_tokens_from_before_a_moment_are_revoked_and_those_that_do_not_say() {
    let revocations = days(30, 10);
    apply(&revocations, &tokens_of("u1", Some(NOW_MS - 5_000)));
    for (name, issued_at_ms, is_revoked) in [
        ("u1", Some(NOW_MS - 5_001), true),
        ("u1", Some(NOW_MS - 5_000), false),
        ("u1", None, true),
        ("u2", Some(0), false),
    ] {
        assert_eq!(revocations.is_revoked(&caller(name, None, issued_at_ms)), is_revoked, "{name} {issued_at_ms:?}");
    }
    // An earlier moment takes nothing back.
    apply(&revocations, &tokens_of("u1", Some(NOW_MS - 60_000)));
    assert!(revocations.is_revoked(&caller("u1", None, Some(NOW_MS - 5_001))));
    // Without a moment it is the one at which the log took it.
    apply(&revocations, &tokens_of("u1", None));
    assert!(revocations.is_revoked(&caller("u1", None, Some(NOW_MS - 1))));
    assert!(!revocations.is_revoked(&caller("u1", None, Some(NOW_MS))));
    assert!(!revocations.is_revoked(&Identity::default()), "nobody is not a user");
}

#[test]
fn a_moment_after_the_log_took_it_does_not_count() {
    let revocations = days(30, 10);
    apply(&revocations, &tokens_of("u1", Some(NOW_MS + DAY_MS)));
    assert!(revocations.is_revoked(&caller("u1", None, Some(NOW_MS - 1))));
    assert!(!revocations.is_revoked(&caller("u1", None, Some(NOW_MS))));
}

#[test]
fn a_user_without_a_moment_in_a_log_without_dates_is_malformed() {
    let revocations = days(30, 10);
    let malformed = revocations.apply(&tokens_of("u1", None), None, NOW_MS).unwrap_err();
    assert_eq!(malformed.field.as_deref(), Some("revoke.issued_before"));
    assert!(revocations.apply(&tokens_of("u1", Some(NOW_MS)), None, NOW_MS).is_ok());
    assert!(revocations.apply(&token("a", None), None, NOW_MS).is_ok());
}

#[test]
fn one_is_kept_until_its_tokens_expire_or_as_long_as_a_token_may_live() {
    let revocations = days(2, 10);
    apply(&revocations, &token("short", Some(NOW_MS + DAY_MS)));
    apply(&revocations, &token("long", None));
    apply(&revocations, &tokens_of("u1", Some(NOW_MS - DAY_MS)));
    assert_eq!(apply(&revocations, &token("over", Some(NOW_MS - LEEWAY_MS))).held, 3, "one that is over is not kept");
    assert_eq!(revocations.let_go(NOW_MS + DAY_MS + LEEWAY_MS - 1), 3, "somebody may still take the token");
    assert_eq!(revocations.let_go(NOW_MS + DAY_MS + LEEWAY_MS), 2);
    assert!(!revocations.is_revoked(&caller("u2", Some("short"), None)));
    assert!(revocations.is_revoked(&caller("u1", None, Some(0))));
    assert_eq!(revocations.let_go(NOW_MS + 2 * DAY_MS), 0);
    assert!(!revocations.is_revoked(&caller("u1", Some("long"), Some(0))));
    // Read again long after, it is over at once.
    let read_late = revocations.apply(&token("long", None), Some(NOW_MS), NOW_MS + 2 * DAY_MS).unwrap();
    assert_eq!(read_late.held, 0);
}

#[test]
fn beyond_the_limit_those_that_end_first_go_and_are_counted() {
    let revocations = days(30, 2);
    apply(&revocations, &token("b", Some(NOW_MS + 2_000)));
    apply(&revocations, &token("a", Some(NOW_MS + 1_000)));
    assert_eq!(apply(&revocations, &token("c", Some(NOW_MS + 3_000))), Kept { held: 2, dropped: 1 });
    let revoked = ["a", "b", "c"].map(|id| revocations.is_revoked(&caller("u1", Some(id), None)));
    assert_eq!(revoked, [false, true, true]);
}

#[test]
fn an_export_comes_back_and_nothing_that_is_broken_does_harm() {
    let revocations = days(30, 30_000);
    assert_eq!(revocations.export(), Vec::<Vec<u8>>::new());
    for n in 0..20_000 {
        apply(&revocations, &token(&format!("token-{n}"), Some(NOW_MS + 1 + n - LEEWAY_MS)));
    }
    apply(&revocations, &tokens_of("u1", Some(NOW_MS - 1)));
    let chunks = revocations.export();
    assert!(chunks.len() > 1 && chunks.iter().all(|chunk| chunk.len() < CHUNK_BYTES + 300));
    let restored = days(30, 30_000);
    for chunk in &chunks {
        restored.import(chunk, NOW_MS + 1).unwrap();
    }
    // What is over by then is not kept.
    assert!(!restored.is_revoked(&caller("u2", Some("token-0"), None)));
    assert!(restored.is_revoked(&caller("u2", Some("token-1"), None)));
    assert!(restored.is_revoked(&caller("u1", None, Some(NOW_MS - 2))));
    assert!(!restored.is_revoked(&caller("u1", None, Some(NOW_MS - 1))));
    revocations.let_go(NOW_MS + 1);
    assert_eq!(restored.export(), revocations.export());
    let few = days(30, 3);
    for chunk in &chunks {
        few.import(chunk, NOW_MS).unwrap();
    }
    assert_eq!(few.let_go(NOW_MS), 3, "a forged checkpoint takes no more memory than the limit");
    for length in 0..200 {
        let _ = few.import(&chunks[0][..length], NOW_MS);
    }
    assert!(few.import(&[REVOCATIONS_CHUNK, 1, 9], NOW_MS).is_err() && few.import(&[1], NOW_MS).is_err());
}
