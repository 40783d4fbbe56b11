//! Keyward: a bearer API key comes in, a Cedar decision goes out.
//!
//! The rooms, from the ground up; a lower one never names a higher one:
//!
//! - [`key`]: the domain, pure: accounts, keys, secrets, tokens and their life.
//! - [`people`]: who manages keys, pure: users, roles, passwords, and how often one may be tried.
//! - [`store`]: what is on disk, and the only way to change it.
//! - [`evaluation`]: what policies say of one question, and remembering it.
//! - [`ring`]: all keys in memory, changed only by what the store committed.
//! - [`ledger`]: the store and the ring, changed together and in that order.
//! - [`audit`]: the decision log, written behind a bounded queue.
//! - [`policy`]: schema and policy files become one immutable, checked `Revision`.
//! - [`authorize`]: the decision itself, pure: values and the time in, a verdict out.
//! - [`recorded`]: the decisions of a while, kept in memory, and decided again under other policies.
//! - [`prove`]: what a solver finds out about all requests that there can be.
//! - [`compare`]: what an edit means: who may do what that they could not, and the other way round.
//! - [`child`]: this program, started again for what could end a process.
//! - [`activate`]: how a revision comes into force: vetted, tested, compared, remembered, swapped; and going back.
//! - [`examine`]: has a child prove and compare.
//! - [`shadow`]: policies that are being tried, on live traffic and off the answer path.
//! - [`staleness`]: for how long what is on disk has not come into force.
//! - [`verifier`]: the one slow check of a secret, bounded and off the runtime.
//! - [`pdp`]: the policy decision point: the live parts above behind one `authorize`.
//! - [`mod@duration`]: how people write durations.
//! - [`outbound`]: how this program calls others over HTTP.
//! - [`webhook`]: tells a receiver what happened.
//! - [`http`]: the listeners; they translate, authorize and answer.
//! - [`dashboard`]: pages for people, over the management API.
//! - [`daemon`]: all of it put together, started and stopped.
//! - [`demo`]: a small Docs API to try it all on.
//! - [`cli`]: words on a command line become calls.

pub mod activate;
pub mod audit;
pub mod authorize;
pub mod child;
pub mod cli;
pub mod compare;
pub mod config;
pub mod daemon;
pub mod dashboard;
pub mod demo;
pub mod directory;
pub mod duration;
pub mod evaluation;
pub mod examine;
pub mod http;
pub mod key;
pub mod ledger;
pub mod metrics;
pub mod outbound;
pub mod pdp;
pub mod people;
pub mod policy;
pub mod prove;
pub mod recorded;
pub mod ring;
pub mod shadow;
pub mod shipped;
pub mod staleness;
pub mod store;
pub mod telemetry;
pub mod trail;
pub mod verifier;
pub mod webhook;
