//! The listeners: they accept, translate, authorize and answer, and decide nothing themselves.
//!
//! [`serve`] owns connections: how many, how long, how large, and how they end. What a request
//! means is the business of the routers that are handed to it.

pub mod descriptors;
pub mod serve;
mod watchdog;
