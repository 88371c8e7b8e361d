//! Opaque tokens: asked about, remembered, and nobody let in while nobody knows.

use std::time::Duration;

use serde_json::json;
use taskcast::{
    auth::{Address, AnswerSettings, Credentials, IntrospectionSettings, Question, Secret, Settings},
    clock,
};

use crate::{
    harness::{Running, client, outcome, until},
    support::identity_provider::{IdentityProvider, Reply},
};

const GOOD_FOR: Duration = Duration::from_secs(3);
const OPEN: &str = "taskcast_introspection_breaker_open";

fn settings(url: &str) -> IntrospectionSettings {
    IntrospectionSettings {
        url: Address(url.parse().unwrap()),
        question: Question::Introspect(Credentials::None),
        user_claim: None,
        audience: Vec::new(),
        issuer: Vec::new(),
        leeway: Duration::ZERO,
        answers: AnswerSettings { good_for: GOOD_FOR, bad_for: Duration::from_secs(1), max: 1000 },
        concurrency_max: 4,
        client: client(),
    }
}

fn run(settings: IntrospectionSettings) -> Running {
    Running::start(Settings::Introspection(Box::new(settings)))
}

/// By RFC 7662: the token `good-<user>` is good.
fn knowing(request: &str) -> Reply {
    let user = request.split("token=good-").nth(1).and_then(|rest| rest.split('&').next());
    Reply::json(&user.map_or(json!({"active": false}), |user| json!({"active": true, "sub": user})))
}

async fn provider() -> IdentityProvider {
    let provider = IdentityProvider::start(Reply::status(500)).await;
    provider.reply_by(knowing);
    provider
}

async fn all(running: &Running, tokens: impl Iterator<Item = String>) -> Vec<String> {
    let mut asked = tokio::task::JoinSet::new();
    for token in tokens {
        let verifier = running.verifier.clone();
        asked.spawn(async move { outcome(&verifier.identify(Some(&token), clock::now()).await) });
    }
    asked.join_all().await
}

#[tokio::test]
async fn a_provider_is_asked_as_rfc_7662_says_in_this_services_own_name() {
    let provider = provider().await;
    let secret = |text: &str| Secret { bytes: text.into(), file: None };
    let basic = Credentials::Basic { id: "task cast".to_owned(), secret: secret("s:cret") };
    for (credentials, header) in [
        (basic, "authorization: Basic dGFzaytjYXN0OnMlM0FjcmV0"),
        (Credentials::Bearer(secret("own-token")), "authorization: Bearer own-token"),
    ] {
        let running =
            run(IntrospectionSettings { question: Question::Introspect(credentials), ..settings(&provider.url("/i")) });
        assert_eq!(running.outcome("good-u1").await, "u1");
        assert_eq!(running.outcome("b&d%token=good-u2").await, "EXPIRED_TOKEN");
        let requests = provider.requests();
        let [.., first, second] = &requests[..] else { panic!("{requests:?}") };
        assert!(first.starts_with("POST /i HTTP/1.1\r\n") && first.contains(header), "{first}");
        assert!(first.contains("content-type: application/x-www-form-urlencoded"), "{first}");
        assert!(first.ends_with("\r\n\r\ntoken=good-u1&token_type_hint=access_token"), "{first}");
        assert!(second.contains("token=b%26d%25token%3Dgood-u2&"), "{second}");
    }
}

#[tokio::test]
async fn a_plain_provider_is_shown_the_token_itself() {
    let provider = IdentityProvider::start(Reply::status(500)).await;
    provider.reply_by(|request| {
        match request.split("authorization: Token ").nth(1).and_then(|rest| rest.lines().next()) {
            Some("good") => Reply::json(&json!({"user": {"pk": 7}, "name": "Ada"})),
            Some("unnamed") => Reply::json(&json!({"name": "Ada"})),
            Some("forbidden") => Reply::status(403),
            // As a proxy before the provider says of a header that is too long.
            Some(long) if long.len() > 1000 => Reply::status(400),
            _ => Reply::status(401),
        }
    });
    let question = Question::Present { scheme: "Token".to_owned() };
    let user_claim = Some("/user/pk".to_owned());
    let running = run(IntrospectionSettings { question, user_claim, ..settings(&provider.url("/me")) });
    for (token, expected) in [
        ("good", "7"),
        ("bad", "EXPIRED_TOKEN"),
        ("forbidden", "EXPIRED_TOKEN"),
        ("unnamed", "later"),
        ("good\r\nX-Injected: 1", "INVALID_TOKEN"),
        ("good ", "INVALID_TOKEN"),
    ] {
        assert_eq!(running.outcome(token).await, expected, "{token}");
    }
    for n in 0..10 {
        assert_eq!(running.outcome(&format!("{}{n}", "x".repeat(2000))).await, "INVALID_TOKEN");
    }
    assert_eq!(running.metric(OPEN), 0, "what it says of one token says nothing of others");
    assert!(provider.requests().iter().all(|request| request.starts_with("GET /me") && !request.contains("Injected")));
}

#[tokio::test]
async fn answers_are_remembered_for_a_while_and_one_question_serves_all_who_wait() {
    let provider = provider().await;
    provider.reply_by(|request| knowing(request).after(Duration::from_millis(200)));
    let running = run(settings(&provider.url("/i")));
    let same = all(&running, (0..200).map(|_| "good-u1".to_owned())).await;
    assert!(same.iter().all(|outcome| outcome == "u1") && provider.count() == 1, "{}", provider.count());
    assert_eq!(running.outcome("bad").await, "EXPIRED_TOKEN");
    assert_eq!(running.outcome("bad").await, "EXPIRED_TOKEN");
    assert_eq!(running.outcome("good-u1").await, "u1");
    assert_eq!(provider.count(), 2);
    assert!(running.metric("taskcast_introspections_remembered_total") >= 2);
    assert_eq!(running.metric("taskcast_introspection_answers"), 2);
    // What is revoked is refused when the answer's time is up, and what became good is let in.
    let (revoked, asked) = (clock::now().instant, provider.count());
    provider.reply_by(|request| {
        if request.contains("token=bad") {
            Reply::json(&json!({"active": true, "sub": "b"}))
        } else {
            Reply::json(&json!({"active": false}))
        }
    });
    running.until("bad", "b").await;
    running.until("good-u1", "EXPIRED_TOKEN").await;
    assert!(revoked.elapsed() < GOOD_FOR + Duration::from_secs(2));
    assert_eq!(provider.count(), asked + 2);
}

#[tokio::test]
async fn no_more_answers_are_remembered_and_no_more_questions_asked_at_a_time_than_configured() {
    let provider = provider().await;
    provider.reply_by(|request| knowing(request).after(Duration::from_millis(5)));
    let mut few = settings(&provider.url("/i"));
    (few.answers.max, few.concurrency_max) = (50, 3);
    let running = run(few);
    let outcomes = all(&running, (0..300).map(|number| format!("good-{number}"))).await;
    assert!(outcomes.iter().all(|outcome| outcome != "EXPIRED_TOKEN"));
    all(&running, (0..300).map(|number| format!("bad-{number}"))).await;
    assert!(running.metric("taskcast_introspection_answers") <= 100);
    assert!(provider.most_under_way() <= 3, "{}", provider.most_under_way());
}

#[tokio::test]
async fn a_provider_that_fails_is_left_alone_for_a_while_and_nobody_is_let_in_or_told_that_a_token_is_bad() {
    let provider = provider().await;
    let running = run(settings(&provider.url("/i")));
    assert_eq!(running.outcome("good-known").await, "known");
    provider.reply(Reply::status(503));
    for number in 0..5 {
        assert_eq!(running.outcome(&format!("good-{number}")).await, "later");
    }
    assert_eq!((running.metric(OPEN), running.verifier.health().ok), (1, false));
    let asked = provider.count();
    let outcomes = all(&running, (0..100).map(|number| format!("good-{number}"))).await;
    assert!(outcomes.iter().all(|outcome| outcome == "later"));
    assert_eq!(provider.count(), asked, "it is not asked");
    assert!(running.metric("outcome=\"spared\"") >= 100);
    provider.reply_by(knowing);
    running.until("good-1", "1").await;
    assert_eq!((running.metric(OPEN), running.verifier.health().ok), (0, true));
    assert_eq!(provider.count(), asked + 1, "one question found out");
}

#[tokio::test]
async fn whatever_is_no_answer_lets_nobody_in() {
    let elsewhere = IdentityProvider::start(Reply::json(&json!({"active": true, "sub": "evil"}))).await;
    let stalled = Reply::json(&json!({"active": true, "sub": "late"})).after(Duration::from_secs(60));
    let long = Reply {
        body: format!("{{\"active\":true,\"sub\":\"u1\",\"x\":\"{}\"}}", "x".repeat(100_000)),
        ..Reply::status(200)
    };
    for (what, reply) in [
        ("a redirect", Reply::status(307).with_head(&format!("Location: {}", elsewhere.url("/i")))),
        ("its refusal of this service", Reply::status(401)),
        ("an error", Reply::status(500)),
        ("no JSON", Reply { body: "active".to_owned(), ..Reply::status(200) }),
        ("no word of whether it is active", Reply::json(&json!({"sub": "u1"}))),
        ("too long a one", long),
        ("one that comes too late", stalled),
        ("success without a body", Reply::status(204)),
    ] {
        let provider = IdentityProvider::start(reply).await;
        let mut hasty = settings(&provider.url("/i"));
        hasty.client.timeout = Duration::from_millis(300);
        assert_eq!(run(hasty).outcome("good-u1").await, "later", "{what}");
    }
    assert_eq!(elsewhere.count(), 0);
    let nobody = run(settings(&IdentityProvider::away(Reply::status(200)).url("/i")));
    assert_eq!(nobody.outcome("good-u1").await, "later");
}

#[tokio::test]
async fn who_asked_may_leave_and_the_others_still_hear() {
    let provider = provider().await;
    provider.reply_by(|request| knowing(request).after(Duration::from_secs(2)));
    let mut patient = settings(&provider.url("/i"));
    patient.client.timeout = Duration::from_secs(20);
    let running = run(patient);
    let verifier = running.verifier.clone();
    let first = tokio::spawn(async move { verifier.identify(Some("good-u1"), clock::now()).await });
    until("it is asked", async || provider.count() == 1).await;
    first.abort();
    assert_eq!(running.outcome("good-u1").await, "u1");
    assert_eq!(provider.count(), 1);
}

#[tokio::test]
async fn the_token_itself_is_in_no_error_and_in_no_metric() {
    let provider = IdentityProvider::start(Reply::status(500)).await;
    let running = run(settings(&provider.url("/i?key=hunter2")));
    let refused = running.verifier.identify(Some("hunter2-token"), clock::now()).await;
    assert!(!format!("{refused:?}").contains("hunter2"));
    assert_eq!(running.metric("hunter2"), 0);
    assert!(!format!("{:?}", running.verifier.health()).contains("hunter2"));
}
