//! Fills a new store with keys, to see how a daemon starts on many: `cargo run --release --example fill -- DIR 200000`.
#![allow(clippy::print_stdout, reason = "it says what it did")]

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use keyward::key::{Cost, Kind, Mode, NewKey};
use keyward::ledger::Ledger;
use keyward::store::SledStore;
use keyward::trail::By;

/// Four keys come with an account; the rest are made one by one, with the cheapest hashes.
const COST: Cost = Cost { memory_kib: 8, iterations: 1, parallelism: 1 };
/// Writers at a time: they share each flush.
const WRITERS: usize = 32;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(Ok(keys))) = (arguments.next(), arguments.next().map(|text| text.parse::<usize>())) else {
        return Err("give a folder and a number of keys".into());
    };
    let ledger = Ledger::load(Arc::new(SledStore::open(Path::new(&folder))?))?;
    let by = &By::console(Timestamp::now());
    let (account, _) = ledger.create_account("Filled", COST, None, by)?;
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (ledger, account) = (ledger.clone(), account.id);
                scope.spawn(move || {
                    for number in (writer..keys.saturating_sub(4)).step_by(WRITERS) {
                        let scopes = vec!["resources:read".into()];
                        let named = NewKey::named(Kind::Restricted, Mode::Live, format!("Worker {number}"));
                        ledger.create_key(&account, NewKey { scopes, ..named }, COST, None, by)?;
                    }
                    Ok::<(), keyward::ledger::LedgerError>(())
                })
            })
            .collect();
        writers.into_iter().try_for_each(|writer| writer.join().unwrap_or(Ok(())))
    })?;
    println!("{} keys in {folder}", ledger.ring().len());
    Ok(())
}
