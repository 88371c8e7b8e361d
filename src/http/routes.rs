//! Which address is answered by whom. Filters match paths and take requests apart, nothing else: once a path matched,
//! its handler answers, whatever the method, and no other route is tried.
//!
//! Refuses to know: what the handlers do.

use std::convert::Infallible;

use tokio_util::task::TaskTracker;
use warp::{
    Filter, Rejection,
    filters::{BoxedFilter, path::FullPath},
    http::{HeaderMap, Method, StatusCode},
    hyper::upgrade::OnUpgrade,
    reply::Response,
};

use super::{
    Context, cors, docs,
    entrance::Client,
    event_stream::{self, Lending},
    events,
    head::Head,
    history, listing, long_poll,
    operations::{self, Access},
    origin, page,
    problem::HttpError,
    revocations,
    upgrade::{self, Address, Connection, Permit},
};

/// The pattern of the route that answered, in the response's extensions: the label of the metrics.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route(pub &'static str);

type Routes = BoxedFilter<(Response,)>;

const READ_METHODS: &str = "GET, HEAD, OPTIONS";
const POST_METHODS: &str = "POST, OPTIONS";

/// Everything on the public listener. `tracker` counts the sessions of upgraded connections.
pub(super) fn public(context: &Context, tracker: &TaskTracker) -> Routes {
    let api = publish(context).or(revoke(context)).unify().or(tasks(context)).unify();
    let api = api.or(task(context)).unify().or(frames(context)).unify().boxed();
    let sessions = websockets(context, tracker).or(event_streams(context, tracker)).unify();
    let routes = sessions.or(api).unify().or(pages(context)).unify().boxed();
    finish(&if context.settings.local_hosts_only { foreign_hosts().or(routes).unify().boxed() } else { routes })
}

/// Matches only what was sent to another name than this machine's own, whatever the path. Comes first.
fn foreign_hosts() -> Routes {
    let refuse = |head: Head| async move {
        if origin::is_local(head.host().as_deref()) {
            return Err(warp::reject::not_found());
        }
        Ok(answer("foreign_host", Err(foreign_host())))
    };
    head().and_then(refuse).boxed()
}

fn foreign_host() -> HttpError {
    HttpError::new(
        StatusCode::FORBIDDEN,
        "foreign-host",
        "The Host is not this machine",
        "Whoever reaches this service is let in without a token, so it answers only to localhost, 127.0.0.1 and [::1]: \
         any other name may be that of a web site that passes itself off as this service (DNS rebinding). Use one of \
         these names; to be reached by others, check tokens (auth.mode = \"jwt\"), or welcome everyone \
         (auth.allow_remote_without_token = true).",
    )
}

/// Everything on the operators' listener.
pub(super) fn operations(context: &Context) -> Routes {
    let shared = context.clone();
    let live = warp::path!("livez").and(head());
    let live = live
        .map(move |head: Head| {
            answer("/livez", operations::reply(&shared, &head, Access::Probe, || Ok(operations::live())))
        })
        .boxed();
    let shared = context.clone();
    let ready = warp::path!("readyz").and(head());
    let ready = ready
        .map(move |head: Head| {
            answer("/readyz", operations::reply(&shared, &head, Access::Probe, || Ok(operations::ready(&shared))))
        })
        .boxed();
    let shared = context.clone();
    let metrics = warp::path!("metrics").and(head());
    let metrics = metrics
        .map(move |head: Head| {
            answer("/metrics", operations::reply(&shared, &head, Access::Operator, || operations::metrics(&shared)))
        })
        .boxed();
    finish(&live.or(ready).unify().or(metrics).unify().boxed())
}

/// The one place where a rejection becomes a response.
fn finish(routes: &Routes) -> Routes {
    let recover = |rejection: Rejection| async move {
        Ok::<_, Infallible>(answer("unmatched", Err(HttpError::from_rejection(&rejection))))
    };
    routes.clone().recover(recover).unify().boxed()
}

/// A handler's result as a response that knows its route.
fn answer(route: &'static str, outcome: Result<Response, HttpError>) -> Response {
    let mut response = outcome.unwrap_or_else(HttpError::into_response);
    response.extensions_mut().insert(Route(route));
    response
}

fn head() -> BoxedFilter<(Head,)> {
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    warp::method()
        .and(query)
        .and(warp::header::headers_cloned())
        .and(warp::ext::optional::<Client>())
        .map(|method: Method, query: String, headers: HeaderMap, client: Option<Client>| Head {
            method,
            query,
            headers,
            client,
        })
        .boxed()
}

/// What sessions may watch, each at an address of its own below `prefix`.
fn sessions(
    prefix: &'static str,
    [mine, task, group]: [&'static str; 3],
    route: impl Fn(&'static str, BoxedFilter<(String,)>, fn(&str) -> Address<'_>) -> Routes,
) -> Routes {
    let below = warp::path(prefix);
    route(mine, below.and(warp::path!("tasks")).map(String::new).boxed(), |_| Address::Mine)
        .or(route(task, below.and(warp::path!("tasks" / String)).boxed(), |id| Address::Task(id)))
        .unify()
        .or(route(group, below.and(warp::path!("groups" / String)).boxed(), |id| Address::Group(id)))
        .unify()
        .boxed()
}

fn websockets(context: &Context, tracker: &TaskTracker) -> Routes {
    sessions("ws", ["/ws/tasks", "/ws/tasks/{task_id}", "/ws/groups/{root_id}"], |route, path, address| {
        let (context, tracker) = (context.clone(), tracker.clone());
        path.and(head())
            .and(warp::ext::optional::<OnUpgrade>())
            .and(warp::ext::optional::<Permit>())
            .map(move |segment: String, head: Head, on_upgrade: Option<OnUpgrade>, permit: Option<Permit>| {
                let connection = Connection { on_upgrade, permit };
                answer(route, upgrade::upgrade(&context, &tracker, &head, &address(&segment), connection))
            })
            .boxed()
    })
}

fn event_streams(context: &Context, tracker: &TaskTracker) -> Routes {
    let routes = ["/events/tasks", "/events/tasks/{task_id}", "/events/groups/{root_id}"];
    sessions("events", routes, |route, path, address| {
        let (context, tracker) = (context.clone(), tracker.clone());
        path.and(head())
            .and(warp::ext::optional::<Lending>())
            .and(warp::ext::optional::<Permit>())
            .then(move |segment: String, head: Head, lending: Option<Lending>, permit: Option<Permit>| {
                let (context, tracker) = (context.clone(), tracker.clone());
                async move {
                    let connection = (lending, permit);
                    let response =
                        event_stream::answer(&context, &tracker, &head, &address(&segment), connection).await;
                    answer(route, Ok(response))
                }
            })
            .boxed()
    })
}

fn tasks(context: &Context) -> Routes {
    let context = context.clone();
    warp::path!("api" / "v1" / "tasks")
        .and(head())
        .then(move |head: Head| {
            let context = context.clone();
            async move { get("/api/v1/tasks", &context, &head, listing::tasks(&context, &head)).await }
        })
        .boxed()
}

fn task(context: &Context) -> Routes {
    let context = context.clone();
    warp::path!("api" / "v1" / "tasks" / String)
        .and(head())
        .and(warp::ext::optional::<Lending>())
        .then(move |segment: String, head: Head, lending: Option<Lending>| {
            let context = context.clone();
            async move {
                let asked = long_poll::task(&context, &head, &segment, lending);
                get("/api/v1/tasks/{task_id}", &context, &head, asked).await
            }
        })
        .boxed()
}

fn frames(context: &Context) -> Routes {
    let context = context.clone();
    warp::path!("api" / "v1" / "tasks" / String / "frames")
        .and(head())
        .then(move |segment: String, head: Head| {
            let context = context.clone();
            async move {
                let asked = history::frames(&context, &head, &segment);
                get("/api/v1/tasks/{task_id}/frames", &context, &head, asked).await
            }
        })
        .boxed()
}

/// As [`post`], for a route that only reads.
async fn get(
    route: &'static str,
    context: &Context,
    head: &Head,
    asked: impl Future<Output = Result<Response, HttpError>>,
) -> Response {
    let outcome = match head.method {
        Method::GET | Method::HEAD => asked.await,
        Method::OPTIONS => Ok(cors::preflight(READ_METHODS)),
        _ => Err(HttpError::method_not_allowed(READ_METHODS)),
    };
    cors::decorate(&context.settings.origins, head, answer(route, outcome))
}

/// A route of the API that only takes; `taken` is not begun for any other method.
async fn post(
    route: &'static str,
    context: &Context,
    head: &Head,
    taken: impl Future<Output = Result<Response, HttpError>>,
) -> Response {
    let outcome = match head.method {
        Method::POST => taken.await,
        Method::OPTIONS => Ok(cors::preflight(POST_METHODS)),
        _ => Err(HttpError::method_not_allowed(POST_METHODS)),
    };
    cors::decorate(&context.settings.origins, head, answer(route, outcome))
}

fn publish(context: &Context) -> Routes {
    let context = context.clone();
    warp::path!("api" / "v1" / "events")
        .and(head())
        .and(warp::body::stream())
        .then(move |head: Head, body| {
            let context = context.clone();
            async move { post("/api/v1/events", &context, &head, events::publish(&context, &head, body)).await }
        })
        .boxed()
}

fn revoke(context: &Context) -> Routes {
    let context = context.clone();
    warp::path!("api" / "v1" / "revocations")
        .and(head())
        .and(warp::body::stream())
        .then(move |head: Head, body| {
            let context = context.clone();
            async move { post("/api/v1/revocations", &context, &head, revocations::revoke(&context, &head, body)).await }
        })
        .boxed()
}

fn pages(context: &Context) -> Routes {
    let settings = context.settings.clone();
    let index = warp::path::end().and(head());
    let index = index.map(move |head: Head| answer("/", page::index(&settings, &head))).boxed();
    let part = warp::path!("page" / String).and(head());
    let part = part.map(|name: String, head: Head| answer("/page/{file}", page::file(&head, &name))).boxed();
    let files = part.or(file("/theme.css", warp::path!("theme.css"), &page::THEME)).unify();
    let client = shared_file("/client.js", warp::path!("client.js"), &page::CLIENT);
    let icon = warp::path!("favicon.ico").map(|| answer("/favicon.ico", Ok(page::no_icon()))).boxed();
    index.or(files).unify().or(client).unify().or(icon).unify().or(documentation()).unify().boxed()
}

fn documentation() -> Routes {
    let page = warp::path!("docs").and(warp::path::full()).and(head());
    let page = page.map(|path: FullPath, head: Head| answer("/docs", docs::page(&head, path.as_str()))).boxed();
    page.or(file("/docs/docs.js", warp::path!("docs" / "docs.js"), &docs::SCRIPT))
        .unify()
        .or(file("/docs/docs.css", warp::path!("docs" / "docs.css"), &docs::STYLE))
        .unify()
        .or(shared_file("/docs/openapi.json", warp::path!("docs" / "openapi.json"), &docs::OPENAPI))
        .unify()
        .or(shared_file("/docs/asyncapi.json", warp::path!("docs" / "asyncapi.json"), &docs::ASYNCAPI))
        .unify()
        .boxed()
}

/// As [`file`], for pages of any site.
fn shared_file<P>(route: &'static str, path: P, asset: &'static page::Asset) -> Routes
where
    P: Filter<Extract = (), Error = Rejection> + Clone + Send + Sync + 'static,
{
    path.and(head()).map(move |head: Head| answer(route, page::shared(&head, asset))).boxed()
}

fn file<P>(route: &'static str, path: P, asset: &'static page::Asset) -> Routes
where
    P: Filter<Extract = (), Error = Rejection> + Clone + Send + Sync + 'static,
{
    path.and(head()).map(move |head: Head| answer(route, page::asset(&head, asset))).boxed()
}
