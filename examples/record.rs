//! Makes decisions under the shipped policies and writes them as `keyward decisions export` does, to see how long a replay
//! of many takes: `cargo run --release --example record -- 100000 >decisions.jsonl`, then
//! `time keyward policy replay --candidate policies --from decisions.jsonl`.
#![allow(clippy::print_stdout, reason = "it writes what it made")]

use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use keyward::authorize::credentials::Credentials;
use keyward::authorize::{Call, Caller, RequestLine, Stated, Transport, authorize};
use keyward::key::{AccountId, Key, KeyId, Kind, Mint, Mode, NewKey, Phc, StoredSecret};
use keyward::policy::{Bundle, Revision};
use keyward::recorded::{Record, Recorder, Told};
use keyward::ring::LiveKey;
use prometheus::IntCounter;

/// Keys that call, in turns.
const KEYS: usize = 1_000;
/// Decisions between two times that the recorder takes them in.
const CHUNK: usize = 1_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(Ok(decisions)) = std::env::args().nth(1).map(|text| text.parse::<usize>()) else {
        return Err("give a number of decisions".into());
    };
    let revision = Arc::new(Revision::build(&Bundle::read(Path::new("schemas"), Path::new("policies"))?)?);
    let now = Timestamp::now();
    let kinds = [Kind::Publishable, Kind::Secret, Kind::Restricted];
    let mut keys = Vec::new();
    for (number, kind) in (0..KEYS).zip(kinds.into_iter().cycle()) {
        let mode = if number % 2 == 0 { Mode::Live } else { Mode::Test };
        let known = revision.model().scopes.iter().map(|scope| (&**scope).into());
        let scopes = if kind == Kind::Restricted { known.skip(number % 4).take(2).collect() } else { vec![] };
        let mint = Mint::new(kind, mode)?;
        let secret = StoredSecret::new(&mint, Phc::none(), now);
        let new = NewKey { scopes, ..NewKey::named(kind, mode, "caller") };
        let key = Key::create(AccountId::random()?, new, KeyId::random()?, secret, now)?;
        keys.push((Arc::new(LiveKey::new(key, 1)), mint.selector()));
    }
    let routes: Vec<_> = revision.routes().collect();
    let recorder = Recorder::new(decisions, IntCounter::new("dropped", "dropped")?);
    for number in 0..decisions {
        // Steps without a common factor, so that keys and routes meet in every way.
        let route = routes.get(number * 7 % routes.len()).ok_or("no route")?;
        let target = route.template.replace("{id}", &format!("item_{}", number % 997));
        let call = Call {
            credentials: Credentials::None,
            transport: Transport::Secure,
            address: Some(std::net::Ipv4Addr::from_bits(0xC000_0200 + u32::try_from(number % 251)?).into()),
            line: Some(RequestLine { method: &route.method, target: &target }),
            stated: Stated::default(),
        };
        let (live, selector) = keys.get(number * 13 % KEYS).ok_or("no key")?;
        let caller = if number % 50 == 0 { Caller::Anonymous } else { Caller::Proven(Arc::clone(live), *selector) };
        recorder.offer(authorize(&call, caller, &revision, now), &call, &format!("{number:024x}"));
        if number % CHUNK == 0 {
            let _ = recorder.len();
        }
    }
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut after = None;
    loop {
        let records = recorder.chunk(after, CHUNK);
        let Some(last) = records.last().map(Record::id) else { break };
        after = Some(last);
        for record in &records {
            serde_json::to_writer(&mut out, &Told::from(record))?;
            out.write_all(b"\n")?;
        }
    }
    Ok(out.flush()?)
}
