//! What holds of the whole program: against a real `keyward` process on free ports, over real sockets.
//! One binary, because linking is what takes time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test and its helpers fail by panicking"
)]

mod bad_edits;
mod caddy;
mod cli;
mod cli_online;
mod clients;
mod connections;
mod crash;
mod dashboard;
mod decision_log;
mod decisions;
mod demo;
mod envoy;
mod explain;
mod fuzz;
mod haproxy;
mod harness;
mod hosts;
mod insight;
mod last_used;
mod lists;
mod manage;
mod nginx;
mod openapi;
mod permissions;
mod policies;
mod policy_diff;
mod policy_files;
mod policy_test;
mod proxied;
mod reload;
mod replay;
mod requests;
mod retries;
mod rooms;
mod rotation;
mod scan;
mod secrets;
mod security;
mod shadow;
mod shutdown;
mod store;
mod transfer;
mod webhook;
