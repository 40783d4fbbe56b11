//! The listeners: they accept, translate, authorize and answer, and decide nothing themselves.
//!
//! [`serve`] owns connections: how many, how long, how large, and how they end. What a request
//! means is the business of the routers that are handed to it: [`Decision`] for proxies and services,
//! [`Admin`] for people and scripts.

pub mod admin;
pub(crate) mod answer;
mod decide;
pub mod decision;
pub mod descriptors;
mod forward_auth;
pub mod hosts;
mod json;
pub mod manage;
pub mod names;
mod request_id;
pub mod serve;
pub(crate) mod source;
mod watchdog;

pub use admin::Admin;
pub use decision::Decision;
pub(crate) use request_id::RequestId;
