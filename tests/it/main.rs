//! What holds of the whole program: against a real `keyward` process on free ports, over real sockets.
//! One binary, because linking is what takes time.

mod connections;
mod demo;
mod harness;
