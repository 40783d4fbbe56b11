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
mod cli;
mod cli_online;
mod clients;
mod connections;
mod crash;
mod dashboard;
mod decisions;
mod demo;
mod explain;
mod fuzz;
mod harness;
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
