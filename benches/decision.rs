//! The steps of a warm decision, each alone, then all together: `cargo bench --bench decision`.
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use jiff::Timestamp;
use keyward::authorize::credentials::Credentials;
use keyward::authorize::path::normalise;
use keyward::authorize::verdict::Verdict;
use keyward::authorize::{Call, Caller, RequestLine, Stated, Transport, authorize};
use keyward::key::{Account, AccountId, Cost, Key, KeyId, Kind, Mint, Mode, NewKey, StoredSecret, Token};
use keyward::policy::{Bundle, Revision};
use keyward::recorded::Recorder;
use keyward::ring::{Applied, Ring};

struct Fixture {
    revision: Arc<Revision>,
    ring: Ring,
    mint: Mint,
}

impl Fixture {
    /// The shipped policies, and a ring of 10,000 keys of which one is used.
    fn new(kind: Kind) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let bundle = Bundle::read(&root.join("schemas"), &root.join("policies")).unwrap();
        let revision = Arc::new(Revision::build(&bundle).unwrap());
        let now = Timestamp::now();
        let account = Account::create(AccountId::random().unwrap(), "bench", now).unwrap();
        let ring = Ring::new();
        let make = |cost: Cost| {
            let mint = Mint::new(kind, Mode::Live).unwrap();
            let secret = StoredSecret::new(&mint, mint.secret().hash(cost).unwrap(), now);
            let scopes = if kind == Kind::Restricted { vec!["resources:read".into()] } else { vec![] };
            let new = NewKey { scopes, ..NewKey::named(kind, Mode::Live, "bench") };
            ring.apply(Applied::Key(
                Key::create(account.id, new, KeyId::random().unwrap(), secret, now).unwrap().into(),
                1,
            ));
            mint
        };
        let cheap = Cost { memory_kib: 8, iterations: 1, parallelism: 1 };
        for _ in 0..10_000 {
            make(cheap);
        }
        let mint = make(cheap);
        ring.find(&mint.selector()).unwrap().remember(&mint.selector(), mint.secret());
        Self { revision, ring, mint }
    }

    fn decide(&self, target: &str) -> bool {
        self.decide_and(target, |_, _| {})
    }

    /// Decides, and hands the verdict on as a surface does once it is answered.
    fn decide_and(&self, target: &str, then: impl FnOnce(Verdict, &Call<'_>)) -> bool {
        let Credentials::Token(token) = Credentials::of_token(self.mint.expose().as_bytes()) else {
            return false;
        };
        let live = self.ring.find(&token.selector).unwrap();
        let _ = black_box(live.glance(&token));
        let call = Call {
            credentials: Credentials::Token(token),
            transport: Transport::Secure,
            address: None,
            line: Some(RequestLine { method: "GET", target }),
            stated: Stated::default(),
        };
        let now = Timestamp::now();
        let verdict = authorize(&call, Caller::Proven(live, token.selector), &self.revision, now);
        if let Some(live) = &verdict.key {
            live.note_use(&token.selector, now, call.address);
        }
        let is_allowed = verdict.reason.outcome().status() == 200;
        then(verdict, &call);
        is_allowed
    }
}

fn steps(criterion: &mut Criterion) {
    let secret = Fixture::new(Kind::Secret);
    let restricted = Fixture::new(Kind::Restricted);
    let text = secret.mint.expose().as_bytes().to_vec();
    let token = Token::parse(&text).unwrap();
    criterion.bench_function("token parse", |bench| bench.iter(|| Token::parse(black_box(&text)).is_ok()));
    criterion.bench_function("ring look-up", |bench| bench.iter(|| secret.ring.find(black_box(&token.selector))));
    let live = secret.ring.find(&token.selector).unwrap();
    criterion.bench_function("secret compare", |bench| bench.iter(|| live.glance(black_box(&token))));
    let (now, address) = (Timestamp::now(), Some("192.0.2.7".parse().unwrap()));
    criterion.bench_function("use noted, same minute and address", |bench| {
        bench.iter(|| live.note_use(black_box(&token.selector), black_box(now), black_box(address)));
    });
    let mut last = 0_u32;
    criterion.bench_function("use noted, another address each time", |bench| {
        bench.iter(|| {
            last = last.wrapping_add(1);
            live.note_use(&token.selector, now, black_box(Some(std::net::Ipv4Addr::from_bits(last).into())));
        });
    });
    criterion.bench_function("path normalise", |bench| {
        bench.iter(|| normalise(black_box("/v1/resources/res_1?a=b")).is_ok());
    });
    criterion.bench_function("route match", |bench| {
        bench.iter(|| secret.revision.find_route(black_box("GET"), black_box("/v1/resources/res_1")).is_some());
    });
    for (name, fixture, target) in [
        ("decision, secret key, collection", &secret, "/v1/resources"),
        ("decision, secret key, item", &secret, "/v1/resources/res_1"),
        ("decision, restricted key, item", &restricted, "/v1/resources/res_1"),
    ] {
        assert!(fixture.decide(target));
        criterion.bench_function(name, |bench| bench.iter(|| fixture.decide(black_box(target))));
    }
    // What a decision costs more when it is recorded: for whoever decides, and for both sides together.
    let dropped = || prometheus::IntCounter::new("dropped", "dropped").unwrap();
    let (recorder, mut count) = (Recorder::new(100_000, dropped()), 0_u32);
    criterion.bench_function("decision, secret key, item, recorded and taken in", |bench| {
        bench.iter(|| {
            count += 1;
            if count.is_multiple_of(1_024) {
                black_box(recorder.len());
            }
            let id = "0011223344556677000000ff";
            secret.decide_and(black_box("/v1/resources/res_1"), |verdict, call| recorder.offer(verdict, call, id))
        });
    });
    let recorder = Recorder::new(100_000, dropped());
    criterion.bench_function("decision, secret key, item, handed over", |bench| {
        let decide = || {
            let id = "0011223344556677000000ff";
            secret.decide_and("/v1/resources/res_1", |verdict, call| recorder.offer(verdict, call, id))
        };
        bench.iter_custom(|iterations| {
            let mut took = std::time::Duration::ZERO;
            let mut left = iterations;
            while left > 0 {
                let now = left.min(1_024);
                let started = std::time::Instant::now();
                for _ in 0..now {
                    black_box(decide());
                }
                took += started.elapsed();
                left -= now;
                black_box(recorder.len());
            }
            took
        });
    });
    assert!(!restricted.decide("/v1/jobs"));
    criterion.bench_function("denial, restricted key, four scopes tried", |bench| {
        bench.iter(|| restricted.decide("/v1/jobs"));
    });
}

criterion_group!(benches, steps);
criterion_main!(benches);
