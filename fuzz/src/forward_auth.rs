//! Forward-auth: whatever headers a proxy relays, an allow rests on what it stated exactly once, in the headers of its
//! own style and no others.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwap;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::BodyExt;
use jiff::Timestamp;
use keyward::authorize::verdict::Reason;
use keyward::config::{self, ProxyStyle};
use keyward::http::{Decision, names};
use keyward::key::{Ceiling, Cost, Kind, Mint, Mode, NewKey};
use keyward::ledger::{Exposure, Ledger};
use keyward::metrics::Metrics;
use keyward::pdp::Pdp;
use keyward::policy::{Bundle, Revision};
use keyward::recorded::Recorder;
use keyward::store::Store;
use keyward::trail::By;
use keyward::verifier::Verifier;
use tower::ServiceExt;

use super::rows::Rows;

const PREFIX: &str = "/v1/forward-auth";
const PROXY: [u8; 4] = [127, 0, 0, 1];
const STRANGER: [u8; 4] = [192, 0, 2, 7];
/// Argon2's least: what is looked at here comes before and after it.
const COST: Cost = Cost { memory_kib: 8, iterations: 1, parallelism: 1 };
const IDENTITY: [HeaderName; 6] =
    [names::ACCOUNT, names::ENVIRONMENT, names::MODE, names::KEY, names::KIND, names::SCOPES];

static REVISION: LazyLock<Arc<Revision>> = LazyLock::new(|| {
    let files = [
        ("schemas/a.cedarschema", include_str!("../../schemas/docs-api.cedarschema")),
        ("policies/a.cedar", include_str!("../../policies/docs-api.cedar")),
        ("policies/guarantees/a.cedar", include_str!("../../policies/guarantees/docs-api.cedar")),
    ];
    let bundle = Bundle::from_files(files.map(|(path, text)| (path.to_owned(), text.to_owned())));
    Arc::new(Revision::build(&bundle).expect("the shipped files are good"))
});
static METRICS: LazyLock<Arc<Metrics>> = LazyLock::new(|| {
    let reasons = Reason::ALL.iter().map(|reason| (reason.outcome().as_str(), reason.as_str()));
    Arc::new(Metrics::new(reasons).expect("the metrics have names of their own"))
});

/// An account's keys as a store holds them, with their tokens: made once, because inputs are many.
static KEYS: LazyLock<Keys> = LazyLock::new(Keys::new);

/// Sends the input to the endpoint in each style, from a proxy and from a stranger.
///
/// The first line is the method and what follows the endpoint's path, each other line a header. `{pk}`, `{sk}` and
/// `{rk}` in it stand for tokens that are good.
pub fn check(data: &[u8]) {
    let Some(asked) = Asked::read(&with_tokens(data)) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime can be made");
    runtime.block_on(async {
        for style in [ProxyStyle::XForwarded, ProxyStyle::XOriginal, ProxyStyle::Envoy] {
            let answer = ask(style, PROXY, &asked).await;
            is_sound(&answer);
            rests_on_what_was_stated(style, &asked, &answer);
            let alone = ask(style, PROXY, &asked.of_style_alone(style)).await;
            assert_eq!(
                (alone.status, alone.reason(), alone.identity()),
                (answer.status, answer.reason(), answer.identity()),
                "headers of other styles change the answer in {style:?}"
            );
        }
        let stranger = ask(ProxyStyle::XForwarded, STRANGER, &asked).await;
        assert_eq!(stranger.reason(), "peer_untrusted");
        is_sound(&stranger);
    });
}

struct Keys {
    rows: Rows,
    /// Of a publishable, a secret and a restricted key, by what stands for its token in an input.
    mints: Vec<(&'static str, Mint)>,
}

impl Keys {
    fn new() -> Self {
        let rows = Arc::new(Rows::default());
        let store: Arc<dyn Store> = Arc::clone(&rows) as _;
        let ledger = Ledger::load(store).expect("there is nothing to read");
        let now = Timestamp::now();
        let (account, _) =
            ledger.create_account("fuzz", COST, None, &By::console(now)).expect("an account can be made");
        let mint = |kind, scopes: &[&str]| {
            let scopes = scopes.iter().map(|scope| (*scope).into()).collect();
            let new = NewKey { scopes, ..NewKey::named(kind, Mode::Live, "fuzz") };
            ledger.create_key(&account.id, new, COST, None, &By::console(now)).expect("a key can be made").1
        };
        let mints = vec![
            ("{pk}", mint(Kind::Publishable, &[])),
            ("{sk}", mint(Kind::Secret, &[])),
            ("{rk}", mint(Kind::Restricted, &["resources:read"])),
        ];
        Self { rows: Rows::clone(&rows), mints }
    }
}

fn with_tokens(data: &[u8]) -> Vec<u8> {
    let mut text = data.to_vec();
    for (name, mint) in &KEYS.mints {
        while let Some(at) = text.windows(name.len()).position(|window| window == name.as_bytes()) {
            text.splice(at..at + name.len(), mint.expose().bytes());
        }
    }
    text
}

/// A question, as an HTTP server would hand it on.
struct Asked {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Asked {
    /// `None` for what no HTTP server hands on.
    fn read(text: &[u8]) -> Option<Self> {
        let mut lines = text.split(|byte| *byte == b'\n');
        let line = lines.next()?;
        let space = line.iter().position(|byte| *byte == b' ')?;
        let (method, rest) = (&line[..space], &line[space + 1..]);
        if !(rest.is_empty() || rest.starts_with(b"/") || rest.starts_with(b"?")) {
            return None;
        }
        let uri = Uri::try_from([PREFIX.as_bytes(), rest].concat()).ok()?;
        let mut headers = HeaderMap::new();
        for line in lines {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let name = HeaderName::from_bytes(&line[..colon]).ok()?;
            headers.append(name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?);
        }
        Some(Self { method: Method::from_bytes(method).ok()?, uri, headers })
    }

    /// The same without the headers that mean nothing in this style.
    fn of_style_alone(&self, style: ProxyStyle) -> Self {
        let mut kept = vec![AUTHORIZATION, names::FORWARDED_PROTO, names::FORWARDED_FOR];
        match style {
            ProxyStyle::XForwarded => kept.extend([names::FORWARDED_METHOD, names::FORWARDED_URI]),
            ProxyStyle::XOriginal => {
                kept.extend([names::ORIGINAL_METHOD, names::ORIGINAL_URI, names::ORIGINAL_URL]);
            }
            ProxyStyle::Envoy => {}
        }
        let headers = self.headers.iter().filter(|(name, _)| kept.contains(name));
        let headers = headers.map(|(name, value)| (name.clone(), value.clone())).collect();
        Self { method: self.method.clone(), uri: self.uri.clone(), headers }
    }

    fn values(&self, name: &HeaderName) -> Vec<&[u8]> {
        self.headers.get_all(name).iter().map(HeaderValue::as_bytes).collect()
    }
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn reason(&self) -> &str {
        self.headers.get(names::REASON).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    fn identity(&self) -> Vec<&HeaderValue> {
        IDENTITY.iter().flat_map(|name| self.headers.get_all(name)).collect()
    }
}

/// Asks a daemon of its own, since an answer may have killed a key.
async fn ask(style: ProxyStyle, peer: [u8; 4], asked: &Asked) -> Answer {
    let ledger = Ledger::load(Arc::new(KEYS.rows.clone())).expect("the rows can be read");
    for (_, mint) in &KEYS.mints {
        let live = ledger.ring().find(&mint.selector()).expect("the key is there");
        live.remember(&mint.selector(), mint.secret());
    }
    let verifier = Verifier::new(1, 1, Ceiling(COST), Arc::clone(&METRICS));
    let revision = Arc::new(ArcSwap::new(Arc::clone(&REVISION)));
    let pdp = Arc::new(Pdp::new(ledger, revision, Arc::default(), verifier, Arc::clone(&METRICS), Exposure::Kills));
    let recorder = Recorder::new(0, METRICS.recorded_dropped.clone());
    let config = config::Decision { proxy_style: style, ..config::Decision::default() };
    let mut request = Request::new(Body::empty());
    *request.method_mut() = asked.method.clone();
    *request.uri_mut() = asked.uri.clone();
    *request.headers_mut() = asked.headers.clone();
    request.extensions_mut().insert(ConnectInfo(SocketAddr::from((peer, 4711))));
    let answer = Decision::new(pdp, &config, None, recorder).router(1024).oneshot(request).await;
    let (parts, body) = answer.expect("a router always answers").into_parts();
    let body = body.collect().await.expect("the body is at hand").to_bytes().to_vec();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body }
}

/// What holds of every answer.
fn is_sound(answer: &Answer) {
    let reason = Reason::ALL.iter().find(|reason| reason.as_str() == answer.reason()).expect("a reason of ours");
    assert_eq!(answer.status, reason.outcome().status());
    for name in [names::REASON, names::REVISION, names::REQUEST_ID] {
        assert_eq!(answer.headers.get_all(&name).iter().filter(|value| !value.is_empty()).count(), 1, "{name}");
    }
    let identities = usize::from(answer.status == 200);
    for name in &IDENTITY {
        assert_eq!(answer.headers.get_all(name).iter().count(), identities, "{name}");
    }
    assert_eq!(
        answer.headers.contains_key(WWW_AUTHENTICATE),
        answer.status == 401 || answer.reason() == "scope_missing"
    );
    let told = [format!("{:?}", answer.headers).into_bytes(), answer.body.clone()].concat();
    for (_, mint) in &KEYS.mints {
        let secret = &mint.expose().as_bytes()[24..56];
        assert!(!told.windows(secret.len()).any(|window| window == secret), "the answer tells a secret");
    }
}

/// The shipped policies let nobody in without a key, and no key over plain HTTP.
fn rests_on_what_was_stated(style: ProxyStyle, asked: &Asked, answer: &Answer) {
    let protos = asked.values(&names::FORWARDED_PROTO);
    let urls = if style == ProxyStyle::XOriginal { asked.values(&names::ORIGINAL_URL) } else { Vec::new() };
    let stated = |headers: &[&[u8]], url: &[u8]| {
        protos.iter().any(|proto| headers.contains(proto)) || urls.iter().any(|value| value.starts_with(url))
    };
    if answer.reason() == "transport_insecure" {
        assert!(stated(&[b"http", b"ws"], b"http://"), "a key is killed over a scheme that nobody stated");
    }
    if answer.status != 200 {
        return;
    }
    assert!(stated(&[b"https", b"wss"], b"https://") && !stated(&[b"http", b"ws"], b"http://"));
    assert!(protos.len() + urls.len() >= 1 && protos.len() <= 1 && urls.len() <= 1);
    let [authorization] = asked.values(&AUTHORIZATION)[..] else {
        panic!("{} keys", asked.values(&AUTHORIZATION).len())
    };
    assert!(KEYS.mints.iter().any(|(_, mint)| authorization.ends_with(mint.expose().as_bytes())));
    let (methods, targets) = match style {
        ProxyStyle::XForwarded => (asked.values(&names::FORWARDED_METHOD), asked.values(&names::FORWARDED_URI)),
        ProxyStyle::XOriginal => {
            (asked.values(&names::ORIGINAL_METHOD), [asked.values(&names::ORIGINAL_URI), urls].concat())
        }
        ProxyStyle::Envoy => (vec![asked.method.as_str().as_bytes()], vec![asked.uri.path().as_bytes()]),
    };
    assert!(methods.len() == 1 && targets.len() == 1, "{methods:?} {targets:?}");
    assert!(["GET", "POST", "PATCH", "DELETE"].iter().any(|method| method.as_bytes() == methods[0]));
}
