//! An opaque token whose provider moves its end, in virtual time.

use std::time::Duration;

use serde_json::Value;

use crate::{
    auth::{AuthenticationError, Identity, Issued, OpaqueToken, Refusal},
    proto::{AuthenticationErrorCode, CloseCode, rfc3339},
    session::{machine::Session, test_world::*},
};

/// A session of `u1` with an opaque token that ends in so many seconds.
fn opened(world: &World, seconds: u64) -> (Session, OpaqueToken) {
    let own = OpaqueToken::of("own");
    let issued = Some(Box::new(Issued { opaque: Some(own.clone()), ..Issued::default() }));
    let identity = Identity { issued, ..until(world, seconds) };
    let mut session = Session::open(&world.shared, identity, &mine(), world.now);
    world.frames(&mut session);
    (session, own)
}

/// What the provider says: good for so many seconds from now.
fn until(world: &World, seconds: u64) -> Identity {
    Identity { expires_at_ms: Some(world.now.after(Duration::from_secs(seconds)).unix_ms), ..identity("u1") }
}

fn expired() -> Refusal {
    let (code, message) = (AuthenticationErrorCode::ExpiredToken, "the token is not active".to_owned());
    AuthenticationError { code, message, is_guess: true }.into()
}

/// So many seconds pass; what the session says then, if anything is due.
fn pass(world: &mut World, session: &mut Session, seconds: u64) -> Vec<Value> {
    world.now = world.now.after(Duration::from_secs(seconds));
    world.say(session, &serde_json::json!({"type": "pong"}));
    assert!(session.on_time(world.now));
    world.frames(session)
}

#[test]
fn an_end_that_moves_before_it_was_told_of_is_followed_in_silence() {
    let mut world = World::new();
    let (mut session, own) = opened(&world, 300);
    for _ in 0..60 {
        assert_eq!(types(&pass(&mut world, &mut session, 60)), Vec::<&str>::new());
        session.on_asked(&own, Ok(until(&world, 300)), world.now);
        assert_eq!(types(&world.frames(&mut session)), Vec::<&str>::new());
    }
    // It is used no more: now it ends, a minute's notice included.
    assert_eq!(types(&pass(&mut world, &mut session, 239)), Vec::<&str>::new());
    let told = pass(&mut world, &mut session, 1);
    assert_eq!(types(&told), ["token_expiring"]);
    assert_eq!(told[0]["token_expires_at"], rfc3339(world.now.unix_ms + 60_000));
}

#[test]
fn who_was_told_of_an_end_hears_that_it_moved() {
    let mut world = World::new();
    let (mut session, own) = opened(&world, 300);
    assert_eq!(types(&pass(&mut world, &mut session, 240)), ["token_expiring"]);
    session.on_asked(&own, Ok(until(&world, 300)), world.now);
    let told = world.frames(&mut session);
    assert_eq!((types(&told), told[0].get("id")), (vec!["token_refreshed"], None));
    assert_eq!(told[0]["token_expires_at"], rfc3339(world.now.unix_ms + 300_000));
    assert_eq!(types(&pass(&mut world, &mut session, 239)), Vec::<&str>::new());
    // One that has no end any more is told of no more.
    session.on_asked(&own, Ok(identity("u1")), world.now);
    assert_eq!(types(&pass(&mut world, &mut session, 600)), Vec::<&str>::new());
    assert!(session.closing().is_none());
}

#[test]
fn an_end_that_comes_nearer_is_kept_too() {
    let mut world = World::new();
    let (mut session, own) = opened(&world, 3600);
    session.on_asked(&own, Ok(until(&world, 90)), world.now);
    assert!(session.deadline(world.now) <= world.now.after(Duration::from_secs(45)).instant);
    assert_eq!(types(&pass(&mut world, &mut session, 45)), ["token_expiring"]);
}

#[test]
fn a_token_that_is_over_is_asked_about_once_more_and_goes_on_with_what_was_missed() {
    let mut world = World::new();
    let (mut session, own) = opened(&world, 300);
    assert_eq!(session.waiting.take_own(), None);
    pass(&mut world, &mut session, 240);
    pass(&mut world, &mut session, 60);
    assert_eq!(session.waiting.take_own().as_ref(), Some(&own));
    assert_eq!(pass(&mut world, &mut session, 1), Vec::<Value>::new());
    assert_eq!(session.waiting.take_own(), None, "once");
    world.event("t1", "u1", Some(1.0), None);
    assert_eq!(world.frames(&mut session), Vec::<Value>::new());
    session.on_asked(&own, Ok(until(&world, 300)), world.now);
    assert_eq!(types(&world.frames(&mut session)), ["token_refreshed", "task_progress"]);
}

#[test]
fn the_grace_is_for_a_fresh_token_whatever_is_said_of_the_one_that_is_over() {
    let mut world = World::new();
    let (mut session, own) = opened(&world, 300);
    pass(&mut world, &mut session, 240);
    pass(&mut world, &mut session, 60);
    for answer in [expired(), Refusal::Unavailable] {
        session.on_asked(&own, Err(answer), world.now);
        assert!(session.closing().is_none());
    }
    let told = pass(&mut world, &mut session, 10);
    assert_eq!((types(&told), &told[0]["error_code"]), (vec!["authentication_error"], &"EXPIRED_TOKEN".into()));
    assert_eq!(session.closing().map(|(code, _)| code), Some(CloseCode::Authentication));
    // Before its end it ends at once.
    let (mut session, own) = opened(&world, 300);
    session.on_asked(&own, Err(expired()), world.now);
    assert_eq!(session.closing().map(|(code, _)| code), Some(CloseCode::Authentication));
}
