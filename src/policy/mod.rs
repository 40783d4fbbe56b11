//! Schema and policy files become one immutable [`Revision`], or a [`Rejection`] that says what is wrong.
//!
//! The schema is the API: its `@http` annotations are the routes, and nothing else lists them. The
//! policies are the permissions: nothing about a kind of key, a mode or a scope is decided in Rust.
//! A revision is whole: read at one time, checked whole, named by its digest. Nothing here watches,
//! stores or decides; it reads files when asked to, and is pure otherwise.

mod bundle;
mod declared;
mod digest;
mod extend;
mod format;
mod lint;
mod management;
mod model;
mod paths;
mod problem;
mod revision;
mod routes;
mod scan;
mod slice;
#[cfg(test)]
mod tests;

pub use bundle::Bundle;
pub use digest::{Digest, NotAShortDigest, ShortDigest};
pub use extend::{Edit, ExtendError, NewRoute, NewScope, extend, has_scope};
pub use format::format;
pub use lint::{Finding, lint};
pub use management::{Management, Operation};
pub use model::{Model, PrincipalKind};
pub use paths::{common, filled, stand_in};
pub use problem::{Problem, Rejection};
pub use revision::{PolicyInfo, Revision};
pub use routes::{Route, RouteMatch, Target};
pub(crate) use scan::tokens;
pub use slice::{ContextUse, Slice};
