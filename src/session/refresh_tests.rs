//! A token that ends, a fresh one in its place, and one that is revoked; in virtual time.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};

use crate::{
    auth::{AuthenticationError, Identity, Issued, Rights},
    hub::Runs,
    limits::{Caller, Limits, Settings as LimitSettings},
    proto::{AuthenticationErrorCode, CloseCode, Encoding, RequestId, Revocation, Revoked},
    session::{Request, limits::GUESSES_MAX, machine::Session, test_world::*},
};

const LIFE: Duration = Duration::from_secs(300);

/// A session of `u1` with a token of five minutes and the snapshot behind it.
fn opened(world: &World) -> Session {
    let mut session = Session::open(&world.shared, fresh(world), &mine(), world.now);
    world.frames(&mut session);
    session
}

/// A token of `u1` that is good for five minutes from now.
fn fresh(world: &World) -> Identity {
    Identity { expires_at_ms: Some(world.now.after(LIFE).unix_ms), ..identity("u1") }
}

fn id() -> Option<RequestId> {
    RequestId::from_json("7")
}

/// Lets time pass; what the session says meanwhile.
fn after(world: &mut World, session: &mut Session, seconds: u64) -> Vec<Value> {
    let end = world.now.after(Duration::from_secs(seconds));
    let mut said = Vec::new();
    loop {
        let due = session.deadline(world.now).min(end.instant);
        world.now = world.now.after(due.saturating_duration_since(world.now.instant));
        // Who says nothing for a minute is dead, which is not what is tried here.
        world.say(session, &json!({"type": "pong"}));
        assert!(session.on_time(world.now));
        said.extend(world.frames(session));
        if world.now.instant >= end.instant {
            return said;
        }
    }
}

fn verified(world: &World, session: &mut Session, identity: Identity) -> Vec<Value> {
    session.on_verified(id(), Ok(identity), world.now);
    world.frames(session)
}

#[test]
fn a_client_is_told_before_its_token_ends_and_a_fresh_one_begins_a_new_term() {
    let mut world = World::new();
    let mut session = opened(&world);
    assert_eq!(after(&mut world, &mut session, 239), Vec::<Value>::new());
    let told = after(&mut world, &mut session, 1);
    assert_eq!(types(&told), ["token_expiring"]);
    assert_eq!(told[0]["token_expires_at"], crate::proto::rfc3339(world.now.unix_ms + 60_000));
    assert_eq!(told[0]["refresh_until"], crate::proto::rfc3339(world.now.unix_ms + 70_000));
    let token = fresh(&world);
    let told = verified(&world, &mut session, token);
    assert_eq!((types(&told), &told[0]["id"]), (vec!["token_refreshed"], &json!(7)));
    assert_eq!(told[0]["token_expires_at"], crate::proto::rfc3339(world.now.unix_ms + 300_000));
    // The same rights: nothing else is said, and everything goes on.
    world.event("t1", "u1", Some(1.0), None);
    assert_eq!(types(&world.frames(&mut session)), ["task_progress"]);
    assert_eq!(types(&after(&mut world, &mut session, 299)), ["token_expiring"]);
    assert!(session.closing().is_none());
}

#[test]
fn with_a_token_that_is_over_nothing_of_a_task_is_sent_and_a_fresh_one_brings_what_was_missed() {
    let mut world = World::new();
    world.event("t1", "u1", Some(1.0), None);
    let mut session = opened(&world);
    after(&mut world, &mut session, 300);
    world.event("t1", "u1", Some(2.0), None);
    world.event("t2", "u1", Some(1.0), None);
    assert_eq!(world.frames(&mut session), Vec::<Value>::new());
    assert!(!session.is_plain() && !session.has_more());
    for (message, answer) in [
        (json!({"type": "get_task_status", "task_id": "t1"}), "error"),
        (json!({"type": "get_active_tasks"}), "error"),
        (json!({"type": "subscribe", "task_id": "t1"}), "error"),
        (json!({"type": "cancel_task", "task_id": "t1"}), "error"),
        (json!({"type": "ping"}), "pong"),
    ] {
        world.say(&mut session, &message);
        let told = world.frames(&mut session);
        assert_eq!(types(&told), [answer], "{message}");
        assert!(answer == "pong" || told[0]["error_code"] == "FORBIDDEN", "{told:?}");
    }
    let token = fresh(&world);
    let told = verified(&world, &mut session, token);
    assert_eq!(types(&told), ["token_refreshed", "task_progress", "task_progress"]);
    assert_eq!((&told[1]["progress"], &told[2]["task_id"]), (&json!(2), &json!("t2")));
}

#[test]
fn a_token_that_nobody_replaces_within_the_grace_ends_the_session_with_a_word() {
    let mut world = World::new();
    let mut session = opened(&world);
    assert_eq!(types(&after(&mut world, &mut session, 309)), ["token_expiring"]);
    assert!(session.closing().is_none());
    let told = after(&mut world, &mut session, 1);
    assert_eq!((types(&told), &told[0]["error_code"]), (vec!["authentication_error"], &json!("EXPIRED_TOKEN")));
    assert_eq!(session.closing().map(|(code, _)| code), Some(CloseCode::Authentication));
    // Too late.
    let token = fresh(&world);
    assert_eq!(verified(&world, &mut session, token), Vec::<Value>::new());
}

#[test]
fn a_token_of_less_than_the_lead_is_told_of_at_half_of_its_time_so_that_nobody_is_told_at_once_again() {
    let mut world = World::new();
    let short = Identity { expires_at_ms: Some(world.now.unix_ms + 5_000), ..identity("u1") };
    let mut session = Session::open(&world.shared, short, &mine(), world.now);
    let told = after(&mut world, &mut session, 2);
    assert_eq!(types(&told), ["connection_established", "active_tasks"]);
    assert_eq!(types(&after(&mut world, &mut session, 1)), ["token_expiring"]);
}

#[test]
fn a_token_of_another_user_or_a_bad_one_is_refused_and_changes_nothing() {
    let mut world = World::new();
    let mut session = opened(&world);
    let expired = AuthenticationErrorCode::ExpiredToken;
    let expired = AuthenticationError { code: expired, message: "the token has expired".to_owned(), is_guess: false };
    let nobody = Identity { user: None, ..fresh(&world) };
    for refused in [Err(expired), Ok(Identity { user: Some(user("u2")), ..fresh(&world) }), Ok(nobody)] {
        session.on_verified(id(), refused.map_err(crate::auth::Refusal::Token), world.now);
        let told = world.frames(&mut session);
        assert_eq!((types(&told), &told[0]["error_code"]), (vec!["error"], &json!("TOKEN_REFUSED")), "{told:?}");
        assert_eq!(told[0]["id"], 7);
    }
    assert!(session.closing().is_none());
    world.event("t1", "u1", Some(1.0), None);
    assert_eq!(types(&world.frames(&mut session)), ["task_progress"]);
    // Its own end comes when it was to come.
    assert_eq!(types(&after(&mut world, &mut session, 310)), ["token_expiring", "authentication_error"]);
}

/// A session of `u1` that comes from there, where so many guesses in a minute get one banned.
fn guessing(per_minute: u32) -> (World, Session, Caller) {
    let mut world = World::new();
    let settings = LimitSettings {
        failed_authentications_per_minute_per_ip: per_minute,
        ban: LIFE,
        keys_max: 1_000,
        ..LimitSettings::default()
    };
    let limits = Limits::new(settings, world.shared.metrics.clone(), world.now);
    let caller = limits.caller("192.0.2.1".parse().unwrap(), false);
    std::sync::Arc::make_mut(&mut world.shared).limits = limits;
    let request = Request { caller: Some(caller), ..mine() };
    let mut session = Session::open(&world.shared, fresh(&world), &request, world.now);
    world.frames(&mut session);
    (world, session, caller)
}

fn guess(world: &World, session: &mut Session) -> Vec<Value> {
    let code = AuthenticationErrorCode::InvalidToken;
    let made_up = AuthenticationError { code, message: "the signature is wrong".to_owned(), is_guess: true };
    session.on_verified(id(), Err(made_up.into()), world.now);
    world.frames(session)
}

const TOO_MANY: Option<(CloseCode, &str)> = Some((CloseCode::Policy, "too many tokens that are no good"));

#[test]
fn a_connection_that_guesses_tokens_is_answered_so_often_and_then_closed() {
    let (world, mut session, caller) = guessing(0);
    for number in 1..=GUESSES_MAX {
        assert_eq!(session.closing(), None, "guess {number}");
        let told = guess(&world, &mut session);
        assert_eq!((types(&told), &told[0]["error_code"]), (vec!["error"], &json!("TOKEN_REFUSED")));
        // A good one in between does not begin anew: who has one may guess others'.
        if number == GUESSES_MAX - 1 {
            let token = fresh(&world);
            assert_eq!(types(&verified(&world, &mut session, token)), ["token_refreshed"]);
        }
    }
    assert_eq!(session.closing(), TOO_MANY);
    assert!(!world.shared.limits.is_banned(&caller, world.now), "there is no limit per address");
}

#[test]
fn guesses_on_open_connections_get_their_address_banned_and_who_goes_on_is_closed() {
    let (world, mut session, caller) = guessing(3);
    let request = Request { caller: Some(caller), ..mine() };
    let mut other = Session::open(&world.shared, fresh(&world), &request, world.now);
    world.frames(&mut other);
    for _ in 0..3 {
        guess(&world, &mut session);
    }
    assert!(session.closing().is_none() && !world.shared.limits.is_banned(&caller, world.now));
    guess(&world, &mut session);
    assert_eq!(session.closing(), TOO_MANY);
    assert!(world.shared.limits.is_banned(&caller, world.now));
    // Another connection from there that minds its own business goes on, and has one guess.
    let token = fresh(&world);
    assert_eq!(types(&verified(&world, &mut other, token)), ["token_refreshed"]);
    assert_eq!(types(&guess(&world, &mut other)), ["error"]);
    assert_eq!(other.closing(), TOO_MANY);
}

#[test]
fn a_token_that_was_good_once_is_no_guess_however_often_it_comes() {
    let (world, mut session, caller) = guessing(1);
    for _ in 0..100 {
        let error = AuthenticationError {
            code: AuthenticationErrorCode::ExpiredToken,
            message: "the token has expired".to_owned(),
            is_guess: false,
        };
        session.on_verified(id(), Err(error.into()), world.now);
        session.on_verified(id(), Ok(Identity { user: Some(user("u2")), ..fresh(&world) }), world.now);
        world.frames(&mut session);
    }
    assert!(session.closing().is_none() && !world.shared.limits.is_banned(&caller, world.now));
}

fn rights(tasks: &[&str], tags: &[&str]) -> Rights {
    let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
    Rights { tasks: tasks.iter().map(|id| task_id(id)).collect(), tags, ..Rights::default() }
}

#[test]
fn subscriptions_that_a_fresh_token_does_not_allow_end_and_the_rest_starts_over() {
    let mut world = World::new();
    world.event("t1", "u1", Some(1.0), None);
    world.event("t2", "u2", Some(2.0), None);
    world.event("t3", "u3", Some(3.0), None);
    let wide = Identity { rights: rights(&["t2", "t3"], &["night"]), ..fresh(&world) };
    let mut session = Session::open(
        &world.shared,
        Identity { rights: Rights { own: true, ..wide.rights }, ..wide },
        &mine(),
        world.now,
    );
    world.frames(&mut session);
    for topic in [json!({"task_id": "t2"}), json!({"task_id": "t3"}), json!({"tag": "night"})] {
        let mut subscribe = topic;
        subscribe["type"] = json!("subscribe");
        world.say(&mut session, &subscribe);
    }
    world.frames(&mut session);
    let narrow = Identity { rights: rights(&["t3"], &[]), ..fresh(&world) };
    let told = verified(&world, &mut session, narrow);
    let (said, page) = told.split_at(told.len() - 1);
    assert_eq!(types(said), ["token_refreshed", "unsubscribed", "unsubscribed", "unsubscribed"]);
    let ended: BTreeSet<String> = said[1..]
        .iter()
        .map(|frame| ["user_id", "task_id", "tag"].iter().find_map(|name| frame[name].as_str()).unwrap().to_owned())
        .collect();
    assert_eq!(ended, ["night", "t2", "u1"].map(str::to_owned).into());
    assert_eq!((&page[0]["type"], &page[0]["reset"]), (&json!("active_tasks"), &json!("rights_changed")));
    assert_eq!(page[0]["tasks"].as_array().unwrap().len(), 1);
    assert_eq!(page[0]["tasks"][0]["task_id"], "t3");
    world.event("t1", "u1", Some(11.0), None);
    world.event("t2", "u2", Some(12.0), None);
    world.event("t3", "u3", Some(13.0), None);
    let told = world.frames(&mut session);
    assert_eq!((types(&told), &told[0]["task_id"]), (vec!["task_progress"], &json!("t3")));
}

#[test]
fn the_short_cut_of_delivery_forgets_what_the_token_before_allowed() {
    let mut world = World::new();
    let mut runs = Runs::default();
    let wide = Identity { rights: rights(&["t1", "t2"], &[]), ..fresh(&world) };
    let mut session = Session::open(&world.shared, wide, &mine(), world.now);
    world.frames(&mut session);
    let mut due = |world: &World, session: &mut Session| {
        let progress = world.shared.hub.progress();
        session.is_plain() && session.only_run(&progress, &mut runs).is_some()
    };
    for percent in [1.0, 2.0] {
        world.event("t1", "u2", Some(percent), None);
        assert!(due(&world, &mut session));
    }
    let both = Identity { rights: rights(&["t2"], &["t1"]), ..fresh(&world) };
    verified(&world, &mut session, both);
    assert!(session.is_plain(), "still watched: it might carry the tag");
    world.event("t1", "u2", Some(3.0), None);
    assert!(!due(&world, &mut session));
    assert!(world.frames(&mut session).is_empty());
}

#[test]
fn what_a_fresh_token_allows_besides_is_shown_where_it_was_asked_for_and_nowhere_else() {
    let mut world = World::new();
    world.event("t2", "u2", Some(2.0), None);
    world.event("t3", "u3", Some(3.0), None);
    let mut session = opened(&world);
    world.say(&mut session, &json!({"type": "subscribe", "task_id": "t2"}));
    assert_eq!(types(&world.frames(&mut session)), ["subscribed"], "it looks as if there were none");
    let wider = Identity { rights: Rights { own: true, ..rights(&["t2", "t3"], &[]) }, ..fresh(&world) };
    let told = verified(&world, &mut session, wider);
    assert_eq!(types(&told), ["token_refreshed", "active_tasks"]);
    let tasks: Vec<&str> = told[1]["tasks"].as_array().unwrap().iter().filter_map(|t| t["task_id"].as_str()).collect();
    assert_eq!((tasks, &told[1]["reset"]), (vec!["t2"], &json!("rights_changed")));
}

#[test]
fn the_celery_dialect_gets_its_list_anew() {
    let mut world = World::new();
    world.event("t1", "u1", Some(1.0), None);
    world.event("t2", "u2", Some(2.0), None);
    let request = Request { encoding: Encoding::Celery, ..mine() };
    let mut session = Session::open(&world.shared, fresh(&world), &request, world.now);
    world.frames(&mut session);
    let all = Identity { rights: Rights { own: true, all: true, ..Rights::default() }, ..fresh(&world) };
    assert_eq!(types(&verified(&world, &mut session, all)), ["token_refreshed", "active_tasks"]);
    assert_eq!(types(&after(&mut world, &mut session, 240)), ["token_expiring"]);
}

#[test]
fn a_session_whose_token_is_revoked_ends_and_others_do_not() {
    let world = World::new();
    let revocations = world.shared.verifier.revocations().clone();
    let issued = |id: &str| {
        let issued = Issued { token_id: Some(id.into()), at_ms: Some(world.now.unix_ms), opaque: None };
        Identity { issued: Some(Box::new(issued)), ..fresh(&world) }
    };
    let named = issued("a");
    let mut revoked = Session::open(&world.shared, named.clone(), &mine(), world.now);
    let mut kept = Session::open(&world.shared, issued("b"), &mine(), world.now);
    world.frames(&mut revoked);
    world.frames(&mut kept);
    let revocation = Revocation { revoked: Revoked::Token("a".into()), expires_at_ms: None };
    revocations.apply(&revocation, Some(world.now.unix_ms), world.now.unix_ms).unwrap();
    assert!(!kept.end_if_revoked(&revocations, world.now) && kept.closing().is_none());
    assert!(revoked.end_if_revoked(&revocations, world.now));
    assert!(!revoked.end_if_revoked(&revocations, world.now), "once is enough");
    let told = world.frames(&mut revoked);
    assert_eq!((types(&told), &told[0]["error_code"]), (vec!["authentication_error"], &json!("INVALID_TOKEN")));
    assert_eq!(revoked.closing().map(|(code, _)| code), Some(CloseCode::Authentication));
    // A fresh token that was revoked while it was verified is none.
    let told = verified(&world, &mut kept, named);
    assert_eq!((types(&told), &told[0]["error_code"]), (vec!["error"], &json!("TOKEN_REFUSED")));
}

#[test]
fn no_more_than_one_token_waits_to_be_verified() {
    let world = World::new();
    let mut session = opened(&world);
    let refresh = json!({"type": "refresh_token", "token": "x", "id": 1});
    world.say(&mut session, &refresh);
    assert_eq!(world.frames(&mut session), Vec::<Value>::new());
    world.say(&mut session, &refresh);
    assert_eq!(world.frames(&mut session)[0]["error_code"], "LIMIT_REACHED");
    assert_eq!(session.waiting.take_refresh().map(|refresh| refresh.token), Some("x".to_owned()));
}
